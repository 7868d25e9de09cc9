//! Platforms such as `linux/arm64/v8`: parsing, normalising, matching (containerd's rules for names and variants).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An operating system, an architecture in Go's names and maybe a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v7` of `linux/arm/v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields this program does not know (`os.version`, `os.features`).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A platform that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform")]
pub struct PlatformError {
    /// The text as given.
    pub text: String,
}

impl Platform {
    /// A normalised platform from its parts.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalise(&architecture.to_lowercase(), &variant.unwrap_or("").to_lowercase());
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        Self { os, architecture, variant: (!variant.is_empty()).then_some(variant), extra: Map::new() }
    }

    /// What this program was compiled for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// True when an image made for `self` is the one wanted for `wanted`.
    pub fn matches(&self, wanted: &Self) -> bool {
        let own = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        own.os == wanted.os && own.architecture == wanted.architecture && own.variant == wanted.variant
    }

    /// The variant, empty when there is none.
    pub fn variant_str(&self) -> &str {
        self.variant.as_deref().unwrap_or("")
    }
}

/// The canonical names of an architecture and its variant; the default variant of a family is left out, but for arm.
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le", v) => ("ppc64le", v),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Accepts `os`, `arch`, `os/arch` and `os/arch/variant`; the missing part is the host's.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError { text: text.to_owned() };
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(bad());
        }
        match parts[..] {
            ["local"] => Ok(Self::host()),
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => Ok(Self::new(os, std::env::consts::ARCH, None)),
            [architecture] if is_architecture(architecture) => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(bad()),
        }
    }
}

fn is_architecture(name: &str) -> bool {
    let (name, _) = normalise(&name.to_lowercase(), "");
    matches!(
        name.as_str(),
        "amd64"
            | "386"
            | "arm"
            | "arm64"
            | "ppc64le"
            | "s390x"
            | "riscv64"
            | "mips64le"
            | "mips64"
            | "loong64"
            | "wasm"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (given, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("LINUX/AArch64", "linux/arm64"),
        ] {
            assert_eq!(given.parse::<Platform>().unwrap().to_string(), want, "{given}");
        }
        for bad in ["", "linux/", "a/b/c/d", "what ever", "nonsense"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
