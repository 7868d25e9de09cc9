//! COPY and ADD: what is copied from where to where, as ops. Pure; nothing is looked at on disk.

use parser::chmod::Chmod;
use parser::{AddInstr, CopyFiles, CopyInstr, Heredoc, Spanned};

use super::lower::Lowering;
use super::stage::{Place, Stage};
use super::{MainContext, PlanError};
use crate::files::select::Pattern;
use crate::graph::OpId;
use crate::ops::remote::DownloadName;
use crate::ops::{CopyOp, CopySource, GitOp, HttpOp, OpKind, Unpack};

impl Stage {
    pub(crate) fn copy(
        &mut self,
        lowering: &mut Lowering<'_>,
        copy: &CopyInstr,
        place: Place<'_>,
    ) -> Result<(OpId, String), PlanError> {
        let from = match &copy.from {
            Some(from) => Some(lowering.named_tree(self, from, place)?),
            None => None,
        };
        let mut plan = self.start(lowering, &copy.files, place)?;
        plan.parents = copy.parents;
        for word in &copy.files.sources {
            let path = self.expand(lowering, word, place)?;
            plan.words.push(path.clone());
            if is_remote(&path) {
                let error = place.error(format!("source can't be a git ref or a URL for COPY: `{path}`"), word.span);
                return Err(error.with_help("ADD fetches files and repositories").into());
            }
            let tree = match from {
                Some(from) => from,
                None => lowering.copied_context(place, word.span, &path)?,
            };
            plan.path(tree, path, &copy.files);
        }
        self.finish(lowering, plan, "COPY", &copy.files, place)
    }

    pub(crate) fn add(
        &mut self,
        lowering: &mut Lowering<'_>,
        add: &AddInstr,
        place: Place<'_>,
    ) -> Result<(OpId, String), PlanError> {
        let mut plan = self.start(lowering, &add.files, place)?;
        plan.unpack = match add.unpack {
            None => Unpack::LocalArchives,
            Some(true) => Unpack::Archives,
            Some(false) => Unpack::Never,
        };
        let checksum = match &add.checksum {
            Some(word) => Some((self.expand(lowering, word, place)?, word.span)),
            None => None,
        };
        if let Some((_, span)) = checksum.as_ref().filter(|_| add.files.sources.len() + add.files.heredocs.len() > 1) {
            let error = place.error("checksum can't be specified for multiple sources", *span);
            return Err(error.with_help("write an ADD for each").into());
        }
        for word in &add.files.sources {
            let path = self.expand(lowering, word, place)?;
            plan.words.push(path.clone());
            let git = GitOp::parse(&path).map_err(|error| place.error(error.to_string(), word.span))?;
            if let Some(git) = git {
                plan.add_git(lowering, git, add, checksum.as_ref(), place)?;
            } else if path.starts_with("http://") || path.starts_with("https://") {
                plan.add_http(lowering, path, checksum.as_ref(), place)?;
            } else {
                if let Some((_, span)) = &checksum {
                    return Err(place.error("checksum requires HTTP(S) or Git sources", *span).into());
                }
                let tree = lowering.copied_context(place, word.span, &path)?;
                plan.path(tree, path, &add.files);
            }
        }
        self.finish(lowering, plan, "ADD", &add.files, place)
    }

    fn start(&self, lowering: &mut Lowering<'_>, files: &CopyFiles, place: Place<'_>) -> Result<CopyPlan, PlanError> {
        let dest = self.expand(lowering, &files.dest, place)?;
        let slash = dest.is_empty() || dest == "." || dest.ends_with('/') || dest.ends_with("/.");
        let mut path = self.absolute(&dest);
        if slash && !dest.is_empty() && path != "/" {
            path.push('/');
        }
        Ok(CopyPlan {
            inputs: Vec::new(),
            sources: Vec::new(),
            words: Vec::new(),
            written_dest: dest,
            dest: path,
            parents: false,
            unpack: Unpack::Never,
        })
    }

    fn finish(
        &self,
        lowering: &mut Lowering<'_>,
        mut plan: CopyPlan,
        keyword: &str,
        files: &CopyFiles,
        place: Place<'_>,
    ) -> Result<(OpId, String), PlanError> {
        for heredoc in &files.heredocs {
            plan.words.push(format!("<<{}", heredoc.name));
            plan.sources.push(self.heredoc(lowering, heredoc, place)?);
        }
        let owner = match &files.chown {
            Some(word) => Some(self.expand(lowering, word, place)?).filter(|owner| !owner.is_empty()),
            None => None,
        };
        let mode = match &files.chmod {
            Some(word) => Some((self.expand(lowering, word, place)?, word.span)).filter(|(mode, _)| !mode.is_empty()),
            None => None,
        };
        let chmod = match &mode {
            Some((text, span)) => {
                Some(Chmod::parse(text).map_err(|e| PlanError::from(place.error(e.to_string(), *span)))?)
            }
            None => None,
        };
        let created_by = plan.created_by(keyword, owner.as_deref(), mode.as_ref().map(|(text, _)| text.as_str()));
        let op = CopyOp {
            sources: plan.sources,
            dest: plan.dest,
            owner,
            // With a mode it is an ordinary copy, in what it does to links and in when it is made anew: so in docker build.
            link: files.link && chmod.is_none(),
            chmod,
            unpack: plan.unpack,
            epoch: lowering.epoch,
        };
        let inputs = [vec![self.op], plan.inputs].concat();
        Ok((lowering.graph.add(OpKind::Copy(op), inputs), created_by))
    }

    fn heredoc(
        &self,
        lowering: &mut Lowering<'_>,
        heredoc: &Heredoc,
        place: Place<'_>,
    ) -> Result<CopySource, PlanError> {
        if parser::gomatch::clean_path(&format!("/{}", heredoc.name)).trim_start_matches('/').contains('/') {
            let message = format!("`{}` can't be the name of a heredoc's file: it has a slash in it", heredoc.name);
            return Err(place.error(message, heredoc.span).with_help("name the path in the destination").into());
        }
        let mut content = heredoc.content();
        if heredoc.expand {
            let env = |name: &str| self.scope.get(name).map(str::to_owned);
            let expanded = parser::expand::expand_heredoc(&content, &env)
                .map_err(|error| PlanError::from(place.error(error.to_string(), heredoc.body_span)))?;
            lowering.undefined(self, &expanded.vars, heredoc.body_span, place);
            content = expanded.text;
        }
        Ok(CopySource::Inline { name: heredoc.name.clone(), content })
    }
}

/// A COPY or ADD in the making.
struct CopyPlan {
    inputs: Vec<OpId>,
    sources: Vec<CopySource>,
    /// The sources as the history has them.
    words: Vec<String>,
    /// The destination as written, variables replaced.
    written_dest: String,
    dest: String,
    parents: bool,
    unpack: Unpack,
}

impl CopyPlan {
    /// What the history says of it: the flags that decide what the files look like, the sources, the destination.
    fn created_by(&self, keyword: &str, owner: Option<&str>, mode: Option<&str>) -> String {
        let parents = self.parents.then(|| "--parents".to_owned());
        let flags = [parents, owner.map(|o| format!("--chown={o}")), mode.map(|m| format!("--chmod={m}"))];
        let mut words = vec![keyword.to_owned()];
        words.extend(flags.into_iter().flatten());
        words.extend(self.words.iter().cloned());
        words.push(self.written_dest.clone());
        format!("{} # buildkit", words.join(" "))
    }

    /// The number of `op` among the inputs, where the base is number 0.
    fn input(&mut self, op: OpId) -> usize {
        let position = self.inputs.iter().position(|input| *input == op).unwrap_or_else(|| {
            self.inputs.push(op);
            self.inputs.len() - 1
        });
        position + 1
    }

    fn path(&mut self, tree: OpId, text: String, files: &CopyFiles) {
        let input = self.input(tree);
        let exclude = files.excludes.iter().map(|pattern| pattern.value.clone()).collect();
        self.sources.push(CopySource::Tree { input, pattern: Pattern { text, parents: self.parents, exclude } });
    }

    fn add_git(
        &mut self,
        lowering: &mut Lowering<'_>,
        mut git: GitOp,
        add: &AddInstr,
        checksum: Option<&(String, parser::Span)>,
        place: Place<'_>,
    ) -> Result<(), PlanError> {
        if add.unpack == Some(true) {
            return Err(place.error("unpack can't be used with a git source", place.span).into());
        }
        if let Some(keep) = add.keep_git_dir
            && git.keep_git_dir.replace(keep).is_some_and(|said| said != keep)
        {
            return Err(place.error("--keep-git-dir says one thing and the URL another", place.span).into());
        }
        if let Some((commit, span)) = checksum
            && let Some(said) = git.commit.replace(commit.clone())
            && said != *commit
        {
            return Err(place.error(format!("checksum mismatch: `{commit}` and `{said}`"), *span).into());
        }
        let op = lowering.graph.add(OpKind::Git(git), vec![]);
        let text = "/".to_owned();
        let input = self.input(op);
        let exclude = add.files.excludes.iter().map(|pattern| pattern.value.clone()).collect();
        self.sources.push(CopySource::Tree { input, pattern: Pattern { text, parents: false, exclude } });
        Ok(())
    }

    fn add_http(
        &mut self,
        lowering: &mut Lowering<'_>,
        url: String,
        checksum: Option<&(String, parser::Span)>,
        place: Place<'_>,
    ) -> Result<(), PlanError> {
        let checksum = match checksum {
            None => None,
            Some((text, span)) => {
                Some(text.parse().map_err(|e: oci::DigestError| PlanError::from(place.error(e.to_string(), *span)))?)
            }
        };
        let name = DownloadName::of(&url, self.dest.ends_with('/'));
        let op = lowering.graph.add(OpKind::Http(HttpOp { url, checksum, name }), vec![]);
        let input = self.input(op);
        self.sources.push(CopySource::Download { input });
        Ok(())
    }
}

fn is_remote(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://") || !matches!(GitOp::parse(path), Ok(None))
}

impl Lowering<'_> {
    /// The op of the main build context, which `path` is to be copied from.
    fn copied_context(&mut self, place: Place<'_>, span: parser::Span, path: &str) -> Result<OpId, PlanError> {
        if let (Some(instruction), Some(ignore)) = (place.instruction, &self.request.ignore) {
            self.warn(parser::lint::copy_ignored_file(&self.dockerfile.check, instruction, span, path, ignore));
        }
        self.main_context(place, span)
    }

    /// The op of the main build context.
    pub(crate) fn main_context(&mut self, place: Place<'_>, span: parser::Span) -> Result<OpId, PlanError> {
        match &self.request.main_context {
            MainContext::Local(name) => {
                let local = crate::ops::LocalOp { name: name.clone() };
                Ok(self.graph.add(OpKind::Local(local), vec![]))
            }
            MainContext::Git(git) => Ok(self.graph.add(OpKind::Git(git.clone()), vec![])),
            MainContext::None => {
                let error = place.error("there is no build context to copy from", span);
                Err(error.with_help("the Dockerfile came on standard input; use `-f - PATH` to add a context").into())
            }
        }
    }

    /// What `--from` names.
    fn named_tree(&mut self, stage: &Stage, from: &Spanned<String>, place: Place<'_>) -> Result<OpId, PlanError> {
        let named = parser::stages::resolve_stage_ref(self.dockerfile, stage.index, &from.value);
        self.tree(stage, named, &from.value, from.span, place)
    }
}
