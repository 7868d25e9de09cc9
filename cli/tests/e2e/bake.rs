//! Several targets in one build: `bake`, `--target a,b`, `--all-stages`.

use crate::on_both_backends;
use crate::support::TestSpace;

on_both_backends![
    what_targets_share_runs_once,
    targets_link_to_targets,
    a_matrix_is_many_targets,
    secrets_belong_to_their_target,
    several_stages_of_one_dockerfile,
    all_stages_are_built,
];

impl TestSpace {
    /// Runs `bake` in the context.
    fn bake(&self, args: &[&str]) -> crate::support::Output {
        self.bake_with(args, &[])
    }

    fn bake_with(&self, args: &[&str], environment: &[(&str, &str)]) -> crate::support::Output {
        let mut command = self.command(&[&["bake"], args].concat());
        command.current_dir(self.path("ctx")).envs(environment.iter().copied());
        crate::support::Output::of(command)
    }

    fn in_image(&self, image: &str, script: &str) -> String {
        self.ok(&["run", "--rm", "--network", "none", image, "sh", "-c", script])
    }
}

fn what_targets_share_runs_once(space: &TestSpace) {
    space.write("ctx/file", "content");
    for directory in [".", "other"] {
        space.write(
            &format!("ctx/{directory}/Dockerfile"),
            "FROM busybox AS shared\nRUN head -c 16 /dev/urandom > /random\nFROM shared AS one\nRUN echo one > /name\n\
             FROM shared AS two\nRUN echo two > /name\n",
        );
    }
    space.write(
        "ctx/docker-bake.hcl",
        "group \"default\" { targets = [\"one\", \"two\", \"elsewhere\"] }\n\
         target \"one\" {\n  target = \"one\"\n  tags = [\"one\"]\n}\ntarget \"two\" {\n  target = \"two\"\n  tags = [\"two\"]\n}\n\
         target \"elsewhere\" {\n  context = \"other\"\n  tags = [\"elsewhere\"]\n}\n",
    );
    let output = space.bake(&["--progress", "plain", "--report", "report.json", "--metadata-file", "metadata.json"]);
    output
        .success()
        .says("[one shared 2/2] RUN head")
        .keeps_quiet_about("[two shared")
        .keeps_quiet_about("[elsewhere shared");
    output.says("one: image sha256:").says("named two:latest");
    let random = |image| space.in_image(image, "cat /name; od -An -tx1 /random");
    let (one, two, elsewhere) = (random("one"), random("two"), random("elsewhere"));
    assert_eq!(one.strip_prefix("one\n").unwrap(), two.strip_prefix("two\n").unwrap());
    assert_eq!(two, elsewhere);
    let report: serde_json::Value = serde_json::from_str(&space.read("ctx/report.json")).unwrap();
    let runs = report["steps"].as_array().unwrap().iter();
    assert_eq!(runs.filter(|step| step["cache"] == "miss").count(), 3, "{report}");
    let targets: Vec<_> = report["images"].as_array().unwrap().iter().map(|image| image["target"].clone()).collect();
    assert_eq!(targets, ["one", "two", "elsewhere"]);
    let metadata: serde_json::Value = serde_json::from_str(&space.read("ctx/metadata.json")).unwrap();
    assert_eq!(metadata["two"]["image.name"], "two:latest");
    assert_eq!(metadata["two"]["containerimage.digest"], space.inspect("two")["Id"]);
    space.bake(&[]).success().says("0 ran");
}

fn targets_link_to_targets(space: &TestSpace) {
    space.write(
        "ctx/docker-bake.hcl",
        "target \"base\" {\n  dockerfile-inline = <<EOT\nFROM busybox\nENV FROM_BASE=yes\nRUN echo base > /base\nEOT\n}\n\
         target \"default\" {\n  contexts = { parent = \"target:base\", tree = \"target:base\" }\n  tags = [\"app\"]\n\
         dockerfile-inline = <<EOT\nFROM parent\nCOPY --from=tree /base /copied\nRUN echo $FROM_BASE > /seen\nEOT\n}\n",
    );
    space.bake(&[]).success().keeps_quiet_about("base: image");
    assert_eq!(space.in_image("app", "cat /base /copied /seen"), "base\nbase\nyes\n");
    // What only others need of a target is built as far as they need it.
    space.write(
        "ctx/docker-bake.hcl",
        "target \"base\" {\n  dockerfile-inline = \"FROM busybox\\nRUN false\\n\"\n}\n\
         target \"default\" {\n  contexts = { base = \"target:base\" }\n  dockerfile-inline = \"FROM busybox\\n\"\n}\n",
    );
    space.bake(&[]).success();
    space.bake(&["base"]).code(1).says("target base:2: ").says("RUN false");
}

fn a_matrix_is_many_targets(space: &TestSpace) {
    space.dockerfile("FROM busybox\nARG VERSION\nRUN echo $VERSION > /version\n");
    space.write(
        "ctx/docker-bake.hcl",
        "variable \"PREFIX\" { default = \"app\" }\n\
         target \"app\" {\n  name = \"app-${replace(v, \".\", \"-\")}\"\n  matrix = { v = [\"1.0\", \"2.0\"] }\n  args = { VERSION = v }\n\
         tags = [\"${PREFIX}:${v}\"]\n}\n",
    );
    space.bake_with(&["app", "--set", "app-2-0.args.VERSION=changed"], &[("PREFIX", "mine")]).success();
    assert_eq!(space.in_image("mine:1.0", "cat /version"), "1.0\n");
    assert_eq!(space.in_image("mine:2.0", "cat /version"), "changed\n");
}

fn secrets_belong_to_their_target(space: &TestSpace) {
    space.write("ctx/a.txt", "of a");
    space.write("ctx/b.txt", "of b");
    let target = |name: &str| {
        format!(
            "target \"{name}\" {{\n  tags = [\"{name}\"]\n  secret = [{{ id = \"s\", src = \"{name}.txt\" }}]\n  dockerfile-inline = \
             \"FROM busybox\\nRUN --mount=type=secret,id=s cat /run/secrets/s > /{name}\"\n}}\n"
        )
    };
    space.write("ctx/docker-bake.hcl", target("a") + &target("b"));
    space.bake(&["a", "b"]).success();
    assert_eq!(space.in_image("a", "cat /a"), "of a");
    assert_eq!(space.in_image("b", "cat /b"), "of b");
}

fn several_stages_of_one_dockerfile(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS base\nRUN head -c 16 /dev/urandom > /random\nFROM base AS one\nFROM base AS two\nRUN touch /two\nFROM base\nRUN false\n",
    );
    let ids = space.ok(&["build", "-q", "--target", "one,two", "-t", "app:{target}", "ctx"]);
    assert_eq!(ids.lines().count(), 2);
    let random = |image: &str| space.in_image(image, "od -An -tx1 /random");
    assert_eq!(random("app:one"), random("app:two"));
    let output =
        space.run(&["build", "--target", "one", "--target", "two", "-o", "type=local,dest=out-{target}", "ctx"]);
    output.success().says("one: image sha256:").says("two: image sha256:");
    assert!(space.path("out-two/two").exists() && !space.path("out-one/two").exists());
    for flags in [["-t", "app"], ["-o", "out"], ["--iidfile", "id"]] {
        let output = space.run(&[&["build", "--target", "one,two"], &flags[..], &["ctx"]].concat());
        output.code(2).says("several targets can't all go there").says("put {target} into it");
    }
}

fn all_stages_are_built(space: &TestSpace) {
    let dockerfile = |test: &str| {
        space.dockerfile(&format!(
            "FROM busybox AS app\nRUN touch /app\nFROM app AS test\nRUN {test}\nFROM app AS last\n"
        ));
    };
    dockerfile("touch /tested");
    space.build(&["--all-stages", "--target", "app"]);
    assert_eq!(space.shell("ls /app /tested 2>/dev/null || true"), "/app\n");
    dockerfile("exit 3");
    space.build(&["--target", "last"]);
    space.try_build(&["--all-stages"]).code(1).says("RUN exit 3");
}

#[test]
fn compose_files_are_baked() {
    let Some(space) = TestSpace::with_base(crate::support::Backend::Directory) else { return };
    space.write("ctx/web/Dockerfile", "FROM busybox\nARG NAME\nRUN echo $NAME > /name\n");
    space.write(
        "ctx/compose.yaml",
        "services:\n  web:\n    image: ${REPO:-local}/web\n    build:\n      context: web\n      args:\n        - NAME\n    ports: [\"80:80\"]\n  \
         db:\n    image: postgres\n",
    );
    space.write("ctx/.env", "NAME=\"from the file\"\n");
    space.bake(&[]).success().says("named local/web:latest");
    assert_eq!(space.in_image("local/web", "cat /name"), "from the file\n");
}

#[test]
fn what_is_printed_can_be_baked_again() {
    let Some(space) = TestSpace::new(crate::support::Backend::Directory) else { return };
    space.write(
        "ctx/docker-bake.hcl",
        "variable \"TAG\" {\n  default = \"1\"\n  description = \"of all images\"\n}\n\
         target \"app\" {\n  description = \"the app\"\n  args = { LITERAL = \"$${x} %%{y\" }\n  tags = [\"app:${TAG}\"]\n  \
         output = [\"type=oci,dest=app.tar\"]\n}\ntarget \"_hidden\" {}\n",
    );
    let printed = space.bake(&["--print", "app", "--var", "TAG=2", "--set", "app.no-cache=true"]).text();
    insta::assert_snapshot!(printed, @r#"
    {
      "group": {
        "default": {
          "targets": [
            "app"
          ]
        }
      },
      "target": {
        "app": {
          "description": "the app",
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "LITERAL": "$${x} %%{y"
          },
          "tags": [
            "app:2"
          ],
          "output": [
            {
              "dest": "app.tar",
              "type": "oci"
            }
          ],
          "no-cache": true
        }
      }
    }
    "#);
    space.write("ctx/printed.json", &printed);
    assert_eq!(space.bake(&["-f", "printed.json", "--print"]).text(), printed);
    insta::assert_snapshot!(space.bake(&["--list", "targets"]).text() + &space.bake(&["--list", "variables"]).text(), @r"
    TARGET   DESCRIPTION
    app      the app
    VARIABLE   TYPE   VALUE   DESCRIPTION
    TAG               1       of all images
    ");
}

#[test]
fn mistakes_have_their_lines() {
    let Some(space) = TestSpace::new(crate::support::Backend::Directory) else { return };
    space.bake(&[]).code(2).says("there is no bake file here");
    space.dockerfile("FROM scratch\n");
    space.write(
        "ctx/docker-bake.hcl",
        "target \"app\" {\n  tags = [\"x:${VERSON}\"]\n  plaforms = []\n}\nvariable \"VERSION\" {}\n",
    );
    let output = space.bake(&[]);
    output.code(2).says("docker-bake.hcl:2: there is no variable VERSON").says("did you mean VERSION?");
    output.says(">>>   tags = [\"x:${VERSON}\"]").says("^^^^^^").says("did you mean platforms?").says("2 errors");
    space.write(
        "ctx/docker-bake.hcl",
        "target \"app\" {\n  network = \"host\"\n}\ntarget \"odd\" {\n  attest = [\"type=sbom\"]\n}\n",
    );
    space.bake(&["apt"]).code(2).says("there is no target apt").says("did you mean app?");
    space.bake(&["app"]).code(2).says("target app asks for network.host").says("--allow network.host");
    space.bake(&["app", "--set", "app.tag=x"]).code(2).says("a target has no key tag").says("did you mean tags?");
    space.bake(&["app", "--allow", "network.host", "--set", "app.tags=UPPER"]).code(2).says("target app: --tag UPPER");
}
