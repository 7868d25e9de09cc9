//! The flags of `cache`.

use std::path::PathBuf;

use clap::Subcommand;

/// What to look after.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Cache mounts of RUN
    #[command(subcommand)]
    Mounts(MountsCommand),
}

/// What to do with cache mounts.
#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    /// List cache mounts
    Ls(MountsLsArgs),
    /// Write the files of a cache mount to a zstd-compressed tar
    Export(MountsExportArgs),
    /// Make a cache mount of the files of a tar
    Import(MountsImportArgs),
    /// Remove cache mounts
    Rm(MountsRmArgs),
    /// Limit the bytes that the cache mounts of a name hold
    Quota(MountsQuotaArgs),
}

/// List cache mounts
#[derive(Debug, clap::Args)]
pub(crate) struct MountsLsArgs {
    /// Print JSON
    #[arg(long, value_name = "table|json", default_value = "table")]
    pub(crate) format: String,
}

/// Write the files of a cache mount to a zstd-compressed tar
#[derive(Debug, clap::Args)]
pub(crate) struct MountsExportArgs {
    /// Name or id
    pub(crate) mount: String,
    /// File; standard output when it is `-`
    pub(crate) file: PathBuf,
}

/// Make a cache mount of the files of a tar
#[derive(Debug, clap::Args)]
pub(crate) struct MountsImportArgs {
    /// Name: the `id` of the mount, which is its target when the Dockerfile gives none
    pub(crate) name: String,
    /// A tar, compressed or not; standard input when it is `-`
    pub(crate) file: PathBuf,
    /// `mode` of the mount in the Dockerfile, in octal
    #[arg(long, value_name = "MODE", default_value = "755")]
    pub(crate) mode: String,
    /// `uid` of the mount in the Dockerfile
    #[arg(long, value_name = "UID", default_value_t = 0)]
    pub(crate) uid: u32,
    /// `gid` of the mount in the Dockerfile
    #[arg(long, value_name = "GID", default_value_t = 0)]
    pub(crate) gid: u32,
}

/// Remove cache mounts
#[derive(Debug, clap::Args)]
pub(crate) struct MountsRmArgs {
    /// Names or ids
    #[arg(required = true, value_name = "MOUNT")]
    pub(crate) mounts: Vec<String>,
}

/// Limit the bytes that the cache mounts of a name hold
#[derive(Debug, clap::Args)]
pub(crate) struct MountsQuotaArgs {
    /// Name
    pub(crate) name: String,
    /// Bytes, such as 500m; `none` lifts the quota
    pub(crate) size: String,
}
