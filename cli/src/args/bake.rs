//! The flags of `bake`.

use std::path::PathBuf;

/// Build the targets of bake files (HCL, JSON) and of compose files, all in one go
#[derive(Debug, clap::Args)]
pub(crate) struct BakeArgs {
    /// Targets, groups, or patterns such as `app-*` [default: default]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Grant what targets ask for: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// What to do with the Dockerfiles
    #[arg(long, value_name = "build|check|outline|targets[,format=json]")]
    pub(crate) call: Option<String>,
    /// Check the Dockerfiles and build nothing; short for --call=check
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// Bake or compose file; `-` for standard input [default: compose.yaml, docker-bake.{json,hcl} and their overrides]
    #[arg(long, short, value_name = "FILE|-")]
    pub(crate) file: Vec<String>,
    /// List targets or variables and build nothing
    #[arg(long, value_name = "targets|variables[,format=json]")]
    pub(crate) list: Option<String>,
    /// Keep the images in the local store even with another output
    #[arg(long)]
    pub(crate) load: bool,
    /// Write the results' digests and more to a file, by target
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Run every step again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Print the targets as JSON, with everything filled in, and build nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// How progress is shown: auto, tty, plain, rawjson, quiet or none
    #[arg(long, value_name = "KIND", env = "BUILDKIT_PROGRESS", default_value = "auto")]
    pub(crate) progress: String,
    /// Short for `--set *.attest=type=provenance,…`; `false` switches it off
    #[arg(long, value_name = "true|false|KEY=VALUE")]
    pub(crate) provenance: Option<String>,
    /// Ask the registries even for images that are in the store
    #[arg(long)]
    pub(crate) pull: bool,
    /// Push the images to their registries
    #[arg(long)]
    pub(crate) push: bool,
    /// Write what each step did and why to a JSON file, or to a page when it ends in .html
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Short for `--set *.attest=type=sbom,…`; `false` switches it off
    #[arg(long, value_name = "true|false|KEY=VALUE")]
    pub(crate) sbom: Option<String>,
    /// Change targets: `app.args.VERSION=2`, `*.platform=linux/arm64`, `app*.tags+=app:next`
    #[arg(long, value_name = "TARGET.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Set a variable of the bake files
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// Number of steps that run at the same time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) jobs: usize,
    /// Verify TLS certificates of registries
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) tls_verify: bool,
}
