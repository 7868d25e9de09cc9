//! System call filters.
use serde::{Deserialize, Serialize};
use crate::caps::Capabilities;
use crate::spec::Seccomp;
/// profile
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {}
pub(crate) fn install(_s: &Seccomp, _c: Capabilities) -> rustix::io::Result<()> { Ok(()) }
