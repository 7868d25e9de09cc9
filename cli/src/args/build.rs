//! The flags of `build`.

use std::path::PathBuf;

/// Build an image from a Dockerfile
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BuildArgs {
    /// Context: a directory, a git or http URL, or `-` for a tar or a Dockerfile on standard input
    #[arg(value_name = "PATH|URL|-")]
    pub(crate) context: String,
    /// Add a name to /etc/hosts of every RUN: `host:ip` or `host=ip`
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Build every stage, also those that the target does not need, so that test stages run
    #[arg(long)]
    pub(crate) all_stages: bool,
    /// Grant an entitlement: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Add an annotation to what is pushed or written as an archive: to its manifest, or as TYPE says to manifest,
    /// manifest-descriptor, index or index-descriptor, of one platform or all
    #[arg(long, value_name = "[TYPE[[PLATFORM]],...:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Only `false`: no provenance attestation is made
    #[arg(long, value_name = "false", value_parser = no_attestation)]
    pub(crate) provenance: Option<()>,
    /// Only `false`: no bill of materials is made
    #[arg(long, value_name = "false", value_parser = no_attestation)]
    pub(crate) sbom: Option<()>,
    /// Set a build-time variable; without `=VALUE`, from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Read build-time variables from a file of `NAME=VALUE` lines
    #[arg(long, value_name = "FILE")]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// Add a named context: a directory, docker-image://IMAGE, oci-layout://DIR, a git or http URL
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Make the host's trusted certificates known inside RUN: `host`, or the path of a CA bundle
    #[arg(long, value_name = "host|FILE")]
    pub(crate) ca_cert: Option<String>,
    /// Import cache records
    #[arg(long, value_name = "SOURCE")]
    pub(crate) cache_from: Vec<String>,
    /// Export cache records
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) cache_to: Vec<String>,
    /// What to do with the Dockerfile
    #[arg(long, value_name = "build|check|outline|targets[,format=json]")]
    pub(crate) call: Option<String>,
    /// Check the Dockerfile and build nothing; short for --call=check
    #[arg(long)]
    pub(crate) check: bool,
    /// Parent cgroup of RUN containers
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Print why each step missed the cache, with every difference
    #[arg(long)]
    pub(crate) explain: bool,
    /// Dockerfile [default: PATH/Dockerfile]; `-` for standard input
    #[arg(long, short, value_name = "FILE|URL|-")]
    pub(crate) file: Option<String>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Keep the image in the local store even with another --output or --push
    #[arg(long)]
    pub(crate) load: bool,
    /// Run again what is older: `7d`, or `7d:STAGE`
    #[arg(long, value_name = "AGE[:STAGE]")]
    pub(crate) max_age: Vec<String>,
    /// Write the result's digests and more to a file, as docker buildx does
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// How much of the disk the cache may take while steps run
    #[command(flatten)]
    pub(crate) space: SpaceArgs,
    /// Run every step again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',', conflicts_with = "no_cache")]
    pub(crate) no_cache_filter: Vec<String>,
    /// Where the result goes: `type=oci|docker|image|registry|local|tar|cacheonly,dest=…`, a directory, or `-` for a tar
    #[arg(long, short, value_name = "DESTINATION")]
    pub(crate) output: Vec<String>,
    /// Platforms to build for
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// How progress is shown: auto, tty, plain, rawjson, quiet or none
    #[arg(long, value_name = "KIND", env = "BUILDKIT_PROGRESS", default_value = "auto")]
    pub(crate) progress: String,
    /// Ask the registries even for images that are in the store
    #[arg(long)]
    pub(crate) pull: bool,
    /// Push the image to its registry
    #[arg(long)]
    pub(crate) push: bool,
    /// Print the image id and nothing else
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Write what each step did and why to a JSON file, or to a page when it ends in .html
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Limit RUN steps: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) resource: Vec<String>,
    /// Memory limit of RUN steps
    #[arg(long, short, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Hand a secret to RUN: `id=NAME[,src=FILE|,env=VARIABLE][,invalidate=true]`; with the last, another value runs the step again
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// Size of /dev/shm in RUN
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Hand an agent socket or keys to RUN: `default` or `ID[=SOCKET]`
    #[arg(long, value_name = "default|ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// Name the image; `{target}` stands for the target
    #[arg(long, short, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Stages to build [default: the last one]
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// Limit of RUN processes: `NAME=SOFT[:HARD]`
    #[arg(long, value_name = "LIMIT")]
    pub(crate) ulimit: Vec<String>,
    /// Number of steps that run at the same time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) jobs: usize,
    /// Verify TLS certificates of registries
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) tls_verify: bool,
}

/// Limits of the cache, kept while a build goes on. Sizes such as `20GB`, or shares of the disk such as `50%`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SpaceArgs {
    /// Let the cache take at most this [default: 80% of the disk, at most 100GB]
    #[arg(long, value_name = "SIZE|PERCENT", env = "RBUILD_MAX_USED_SPACE")]
    pub(crate) max_used_space: Option<String>,
    /// Keep this much of the disk free [default: 20%, at most 20GB]
    #[arg(long, value_name = "SIZE|PERCENT", env = "RBUILD_MIN_FREE_SPACE")]
    pub(crate) min_free_space: Option<String>,
    /// Let the cache take this much whatever the other two say [default: 10% of the disk, at most 10GB]
    #[arg(long, value_name = "SIZE|PERCENT", env = "RBUILD_RESERVED_SPACE")]
    pub(crate) reserved_space: Option<String>,
}

/// What is not made can be switched off.
fn no_attestation(text: &str) -> Result<(), String> {
    match text {
        "false" | "0" => Ok(()),
        _ => Err("rbuild makes no attestations; only `false` is taken".to_owned()),
    }
}
