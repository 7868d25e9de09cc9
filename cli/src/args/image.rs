//! The flags of the commands that look after images and the store.

use std::path::PathBuf;

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Only images of this name, in which * and ? stand for other letters
    pub(crate) name: Option<String>,
    /// Print full ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print ids alone
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Only some: reference=NAME (with * and ?), dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Print digests of manifests, which the store does not keep
    #[arg(long)]
    pub(crate) digests: bool,
    /// All images, as without it: steps between make none
    #[arg(long, short, hide = true)]
    pub(crate) all: bool,
    /// table, json with one image a line, or a template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
}

/// Remove names of images, and images that have no name left
#[derive(Debug, clap::Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Also what containers use, and with an id all names of its image; what is not there is no error
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// Name or id
    pub(crate) image: String,
    /// New name
    pub(crate) name: String,
}

/// Print what is known about images or containers, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// json in one line, or a template such as `{{.Config.Cmd}}` [default: JSON for people]
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Only images, or only containers
    #[arg(long = "type", value_name = "image|container", value_parser = ["image", "container"])]
    pub(crate) kind: Option<String>,
}

/// Read images from an OCI layout (tar or directory) or a docker archive
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// File or directory; standard input when it is `-` or left out
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Name for the image
    #[arg(long, short, value_name = "NAME[:TAG]")]
    pub(crate) tag: Option<String>,
    /// Print image ids alone
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Write images to a docker archive or an OCI layout
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// File; standard output when left out
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// docker-archive or oci-archive
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    pub(crate) format: String,
}

/// Fetch an image from its registry
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// Name
    pub(crate) image: String,
    /// Platform, of an image that has several
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Print the image id alone
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Verify TLS certificates of registries
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) tls_verify: bool,
}

/// Send an image to its registry
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Name
    pub(crate) image: String,
    /// Print nothing
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Compression of new layers: gzip, zstd or uncompressed
    #[arg(long, value_name = "CODEC", default_value = "gzip")]
    pub(crate) compression: String,
    /// Verify TLS certificates of registries
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) tls_verify: bool,
}

/// Keep a login for a registry in docker's file (~/.docker/config.json), or with the credential helper that it names
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) server: Option<String>,
    /// User name
    #[arg(long, short, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password, which other users of this machine can see
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Verify TLS certificates of registries
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) tls_verify: bool,
}

/// Forget the login for a registry
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) server: Option<String>,
}

/// Remove what nothing uses: images without a name, old results, caches
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Remove everything that no image name and no container needs, cache mounts too
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Of what --all would remove, only what fits; several must all fit: until=24h, id, description, type, inuse, shared,
    /// private, mutable, immutable; with =, != and ~= (a regular expression)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Keep the results of the last N builds of each project
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<usize>,
    /// Remove what is longest unused until the cache takes at most this
    #[arg(long, value_name = "SIZE|PERCENT")]
    pub(crate) max_used_space: Option<String>,
    /// Remove what is longest unused until this much of the disk is free
    #[arg(long, value_name = "SIZE|PERCENT")]
    pub(crate) min_free_space: Option<String>,
    /// Leave the cache this much
    #[arg(long, value_name = "SIZE|PERCENT")]
    pub(crate) reserved_space: Option<String>,
    /// Print what would be removed and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print whole ids and descriptions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// Print what the store holds, to the byte
#[derive(Debug, clap::Args)]
pub(crate) struct DfArgs {
    /// Print kinds of files too, and all that could be removed, one a line
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// With --verbose, only what fits: as of prune
    #[arg(long, value_name = "KEY=VALUE", requires = "verbose")]
    pub(crate) filter: Vec<String>,
    /// Print whole ids and descriptions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print JSON
    #[arg(long, value_name = "table|json", default_value = "table")]
    pub(crate) format: String,
}

/// Look for damage in the store; exit code 1 when there is some
#[derive(Debug, clap::Args)]
pub(crate) struct FsckArgs {
    /// Remove what is damaged and what needs something that is lost; the next build makes it again
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Print what this machine can do and what rbuild makes of it
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long, value_name = "table|json", default_value = "table")]
    pub(crate) format: String,
}
