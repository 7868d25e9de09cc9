//! `port`.

use std::process::ExitCode;

use crate::container::args::PortArgs;
use crate::container::list::container_port;
use crate::container::look;
use crate::container::state::BoundPort;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Prints where ports are published.
pub(crate) fn run(args: &PortArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let seen = look::find(&store, &args.container)?;
    let live = seen.live()?;
    let Some(wanted) = &args.port else {
        for port in &live.ports {
            port.addresses()
                .iter()
                .for_each(|address| output::say(format_args!("{} -> {address}", container_port(port))));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let mut fits = live.ports.iter().filter(|port| container_port(port) == wanted).peekable();
    if fits.peek().is_none() {
        return Err(CommandError::failed(format!("port {wanted} of container `{}` is not published", seen.name)));
    }
    fits.flat_map(BoundPort::addresses).for_each(output::say);
    Ok(ExitCode::SUCCESS)
}
