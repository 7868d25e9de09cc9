//! Mounts as flags spell them, and what they resolve to.

use super::*;
use crate::expand::expand_word;

fn parse(text: &str) -> Result<RunMount, Box<Diagnostic>> {
    let span = Span::new(100, 100 + text.len());
    let flag = Word { text: text.to_owned(), span };
    RunMount::parse(&flag, 1)
}

fn resolve(text: &str) -> Result<Mount, Box<Diagnostic>> {
    parse(text)?.resolve(|value| {
        let env = |name: &str| (name == "X").then(|| "x".to_owned());
        expand_word(value, &env, '\\').map(|expanded| expanded.text)
    })
}

/// The message, the advice and the underlined text.
#[track_caller]
fn mistake(text: &str) -> String {
    let error = resolve(text).unwrap_err();
    let place = &text[error.span.start - 100..error.span.end - 100];
    let help = error.help.map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}{help} @{place}", error.message)
}

#[test]
fn bind_is_the_default() {
    let mount = resolve("target=/ctx").unwrap();
    assert_eq!(mount.target.as_deref(), Some("/ctx"));
    let bind = |from: Option<&str>, source: &str, readonly| MountKind::Bind {
        from: from.map(str::to_owned),
        source: source.to_owned(),
        readonly,
    };
    assert_eq!(mount.kind, bind(None, "", true));
    assert_eq!(resolve("dst=/a,src=$X/${X},rw").unwrap().kind, bind(None, "x/x", false));
    assert_eq!(resolve("FROM=st,TYPE=BIND,rw=false").unwrap().kind, bind(Some("st"), "", true));
    assert_eq!(parse("from=a,from=b").unwrap().from().unwrap().text, "b");
}

#[test]
fn caches() {
    let mount = resolve("type=cache,target=/c,id=i,sharing=locked,uid=1000,gid=50,mode=0750,ro").unwrap();
    let MountKind::Cache { id, sharing, readonly, owner, .. } = mount.kind else { panic!("{mount:?}") };
    assert_eq!((id.as_deref(), sharing, readonly), (Some("i"), Sharing::Locked, true));
    assert_eq!((owner.uid, owner.gid, owner.mode), (Some(1000), Some(50), Some(0o750)));
}

#[test]
fn memory_secrets_and_sockets() {
    let kind = |text| resolve(text).unwrap().kind;
    assert_eq!(kind("type=tmpfs,target=/t,size=1m"), MountKind::Tmpfs { size_bytes: Some(1 << 20), readonly: false });
    let secret = |id: &str, env: Option<&str>, required| MountKind::Secret {
        id: id.to_owned(),
        env: env.map(str::to_owned),
        required,
        owner: FileInfo::default(),
    };
    assert_eq!(kind("type=secret,id=tok,env=TOK"), secret("tok", Some("TOK"), false));
    assert_eq!(kind("type=secret,target=/x/token,required"), secret("token", None, true));
    assert_eq!(kind("type=secret,source=s,required=true"), secret("s", None, true));
    assert_eq!(
        kind("type=ssh"),
        MountKind::Ssh { id: "default".to_owned(), required: false, owner: FileInfo::default() }
    );
}

#[test]
fn mistakes_underline_the_field() {
    assert_eq!(mistake("target=/t,sorce=x"), "unexpected key 'sorce' in 'sorce=x' (did you mean source?) @sorce");
    assert_eq!(mistake("type=tmpf,target=/t"), "unsupported mount type \"tmpf\" (did you mean tmpfs?) @tmpf");
    assert_eq!(mistake("type=cache,target=/t,sharing=mine"), "unsupported sharing value \"mine\" @mine");
    assert_eq!(mistake("type=bind,target=/t,uid=5"), "uid not allowed for \"bind\" type mounts @uid");
    assert_eq!(mistake("target=/t,size=5"), "unexpected key 'size' for mount type 'bind' @size");
    assert_eq!(mistake("target"), "invalid field 'target' must be a key=value pair @target");
    assert_eq!(mistake("target=/t,ro=maybe"), "invalid value for ro: maybe @maybe");
    assert_eq!(mistake("type=cache,target=/t,mode=9"), "invalid value 9 for mode @9");
    assert_eq!(
        mistake("target=${X"),
        "failed to process \"${X\": syntax error: missing '}' (write `\\$` for a dollar sign) @${X"
    );
    assert_eq!(mistake("type=secret"), "invalid secret mount. one of source, target required @type=secret");
    assert_eq!(mistake("type=secret,id=a,src=b"), "both source and id can't be set @type=secret,id=a,src=b");
    assert_eq!(
        mistake("type=tmpfs,target=/t,sharing=shared"),
        "invalid cache sharing set for tmpfs mount @type=tmpfs,target=/t,sharing=shared"
    );
    assert!(
        mistake("from=$X,target=/t")
            .starts_with("'from' doesn't support variable expansion, define alias stage instead")
    );
}
