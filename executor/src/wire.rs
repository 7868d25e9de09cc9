//! Frames on the control socket: a length, JSON, and descriptors that travel with the length.
//! Knows nothing of what is said (`proto`).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors per frame at most.
const MAX_FDS: usize = 8;

/// No frame is longer: secrets are at most half a megabyte each.
const MAX_FRAME: usize = 64 << 20;

/// A received message and the descriptors that came with it.
pub(crate) struct Frame<T> {
    pub(crate) message: T,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends one message. Callers hold a lock: frames of several threads must not mix.
pub(crate) fn send(mut stream: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(&len), IoSlice::new(&body)];
    let sent = retry(|| rustix::net::sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL))?;
    let rest: Vec<u8> = len.iter().chain(&body).skip(sent).copied().collect();
    stream.write_all(&rest)
}

/// Receives one message; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<Option<Frame<T>>> {
    let mut head = [0_u8; 4];
    let mut filled = 0;
    let mut fds = Vec::new();
    while filled < head.len() {
        let got = receive_some(stream.as_fd(), &mut head[filled..], &mut fds)?;
        if got == 0 {
            return if filled == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        filled += got;
    }
    let len = u32::from_le_bytes(head) as usize;
    if len > MAX_FRAME {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok(Some(Frame { message: serde_json::from_slice(&body)?, fds }))
}

/// Sends one message as one packet of a seqpacket socket.
pub(crate) fn send_packet(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(&body)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet; `None` when the other side is gone.
pub(crate) fn receive_packet<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Frame<T>>> {
    let mut body = vec![0; 256 << 10];
    let mut fds = Vec::new();
    let got = receive_some(socket, &mut body, &mut fds)?;
    if got == 0 {
        return Ok(None);
    }
    Ok(Some(Frame { message: serde_json::from_slice(&body[..got])?, fds }))
}

fn receive_some(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            // The other side has closed without reading all we sent. What it sent before is behind this one error.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            other => break other?.bytes,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(got)
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use std::io::Seek;

    use super::*;

    #[test]
    fn a_long_message_and_its_descriptors_arrive_whole() {
        let (here, there) = UnixStream::pair().unwrap();
        let text = "x".repeat(3 << 20);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let sender = std::thread::spawn({
            let (text, file) = (text.clone(), file.try_clone().unwrap());
            move || {
                send(&here, &text, &[file.as_fd()]).unwrap();
                send(&here, &"second", &[]).unwrap();
            }
        });
        let frame: Frame<String> = receive(&there).unwrap().unwrap();
        assert_eq!(frame.message, text);
        let mut file = std::fs::File::from(frame.fds.into_iter().next().unwrap());
        file.rewind().unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "content");
        let frame: Frame<String> = receive(&there).unwrap().unwrap();
        assert_eq!((frame.message.as_str(), frame.fds.len()), ("second", 0));
        sender.join().unwrap();
        assert!(receive::<String>(&there).unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_of_who_did_not_listen() {
        let flags = SocketFlags::CLOEXEC;
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        send_packet(here.as_fd(), &"unheard", &[]).unwrap();
        send_packet(there.as_fd(), &"last words", &[]).unwrap();
        drop(there);
        let frame: Frame<String> = receive_packet(here.as_fd()).unwrap().unwrap();
        assert_eq!(frame.message, "last words");
        assert!(receive_packet::<String>(here.as_fd()).unwrap().is_none());
    }
}
