//! What is known of package managers: how a RUN that calls one reads, which files it reads beside its own, and where it keeps what it
//! has fetched. Evidence from the history comes first; this only says what the files and directories are called.

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tool {
    /// Words that call it, one after the other.
    commands: &'static [&'static str],
    /// Files that decide what it fetches.
    pub(super) manifests: &'static [&'static str],
    /// What to mount so that it keeps what it has fetched.
    pub(super) mounts: &'static [&'static str],
}

const TOOLS: &[Tool] = &[
    Tool {
        commands: &["npm ci", "npm install", "npm i "],
        manifests: &["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"],
        mounts: &["type=cache,target=/root/.npm"],
    },
    Tool {
        commands: &["yarn install", "yarn --frozen-lockfile", "yarn --immutable"],
        manifests: &["package.json", "yarn.lock", ".yarnrc", ".yarnrc.yml", ".npmrc"],
        mounts: &["type=cache,target=/usr/local/share/.cache/yarn"],
    },
    Tool {
        commands: &["pnpm install", "pnpm i ", "pnpm fetch"],
        manifests: &["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc"],
        mounts: &["type=cache,target=/root/.local/share/pnpm/store"],
    },
    Tool {
        commands: &["pip install", "pip3 install"],
        manifests: &["requirements.txt", "constraints.txt", "pyproject.toml", "setup.py", "setup.cfg"],
        mounts: &["type=cache,target=/root/.cache/pip"],
    },
    Tool {
        commands: &["poetry install"],
        manifests: &["pyproject.toml", "poetry.lock"],
        mounts: &["type=cache,target=/root/.cache/pypoetry"],
    },
    Tool {
        commands: &["uv sync", "uv pip"],
        manifests: &["pyproject.toml", "uv.lock", "requirements.txt"],
        mounts: &["type=cache,target=/root/.cache/uv"],
    },
    Tool {
        commands: &["bundle install"],
        manifests: &["Gemfile", "Gemfile.lock"],
        mounts: &["type=cache,target=/usr/local/bundle/cache"],
    },
    Tool {
        commands: &["composer install"],
        manifests: &["composer.json", "composer.lock"],
        mounts: &["type=cache,target=/root/.composer/cache"],
    },
    Tool {
        commands: &["go mod download"],
        manifests: &["go.mod", "go.sum"],
        mounts: &["type=cache,target=/go/pkg/mod"],
    },
    Tool {
        commands: &["go build", "go install", "go test"],
        manifests: &[],
        mounts: &["type=cache,target=/go/pkg/mod", "type=cache,target=/root/.cache/go-build"],
    },
    Tool {
        commands: &["cargo fetch"],
        manifests: &["Cargo.toml", "Cargo.lock"],
        mounts: &["type=cache,target=/usr/local/cargo/registry"],
    },
    Tool {
        commands: &["cargo build", "cargo install", "cargo test"],
        manifests: &[],
        mounts: &["type=cache,target=/usr/local/cargo/registry"],
    },
    Tool { commands: &["mvn ", "./mvnw "], manifests: &[], mounts: &["type=cache,target=/root/.m2"] },
    Tool { commands: &["gradle ", "./gradlew "], manifests: &[], mounts: &["type=cache,target=/root/.gradle"] },
    Tool {
        commands: &["apt-get install", "apt install"],
        manifests: &[],
        mounts: &["type=cache,target=/var/cache/apt,sharing=locked", "type=cache,target=/var/lib/apt,sharing=locked"],
    },
    Tool { commands: &["apk add"], manifests: &[], mounts: &["type=cache,target=/etc/apk/cache"] },
    Tool {
        commands: &["dnf install", "yum install", "microdnf install"],
        manifests: &[],
        mounts: &["type=cache,target=/var/cache/dnf"],
    },
];

/// The package manager that a RUN calls, if it calls one.
pub(super) fn of(instruction: &str) -> Option<&'static Tool> {
    let words = instruction.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
    TOOLS.iter().find(|tool| tool.commands.iter().any(|command| calls(&words, command)))
}

/// Whether a command stands in a line as words of its own.
fn calls(line: &str, command: &str) -> bool {
    line.match_indices(command).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        let open = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || ";&|()\"'`,".contains(c));
        open(before) && (found.ends_with(' ') || open(after))
    })
}

/// Whether a file is one of those that decide what a package manager fetches.
pub(super) fn is_manifest(tool: &Tool, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    tool.manifests.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_managers_are_known_by_their_commands() {
        assert!(of("RUN npm ci --omit=dev").is_some());
        assert!(of("RUN apk   add curl && true").is_some());
        assert!(of("RUN set -e; pip install -r requirements.txt").is_some());
        for other in ["RUN pnpm run ci", "RUN echo snapt install", "COPY package.json .", "RUN ./npm citizen"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
