//! Texts in, targets out.

use std::collections::BTreeMap;

use super::document::Document;
use super::eval::Scope;
use super::load::Loader;
use super::*;

fn around(environment: &[(&str, &str)]) -> Surroundings {
    let map: BTreeMap<String, String> = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Surroundings {
        variables: BTreeMap::new(),
        environment: map.clone(),
        compose_environment: map,
        built_in: [("BAKE_LOCAL_PLATFORM".to_owned(), "linux/amd64".to_owned())].into(),
        now: "2024-05-06T07:08:09Z".parse().unwrap(),
    }
}

/// What an expression comes to, as JSON; or what is wrong with it.
pub(super) fn eval(expression: &str) -> String {
    let (document, around) = (Document::default(), around(&[]));
    let loader = Loader::new(&document, &around);
    let parsed = hcl_edit::parser::parse_expr(expression).unwrap();
    match (Scope { names: &loader, locals: None, file: 0 }).eval(&parsed) {
        Ok(value) => value.to_json().to_string(),
        Err(error) => text_of(&error),
    }
}

fn text_of(error: &BakeError) -> String {
    error.hint.as_ref().map_or(error.message.clone(), |hint| format!("{} ({hint})", error.message))
}

/// What `bake --print` prints for a file.
fn print_with(files: &[(&str, &str)], names: &[&str], set: &[&str], environment: &[(&str, &str)]) -> String {
    let files: Vec<BakeFile> = files.iter().map(|(name, text)| BakeFile::new(name, text)).collect();
    let line = |error: &BakeError| match &error.place {
        Some(place) => {
            let file = &files[place.file];
            let before = file.text[..place.span.start].matches('\n').count();
            format!("{}:{}: `{}`: {}", file.name, before + 1, &file.text[place.span.clone()], text_of(error))
        }
        None => text_of(error),
    };
    let loaded = match load(&files, &around(environment)) {
        Ok(loaded) => loaded,
        Err(errors) => return errors.iter().map(line).collect::<Vec<_>>().join("\n"),
    };
    let env = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let overrides = set.iter().map(|text| Override::parse(text, &env)).collect::<Result<Vec<_>, _>>();
    let resolved = overrides.and_then(|set| loaded.resolve(&names, &set.into_iter().flatten().collect::<Vec<_>>()));
    match resolved {
        Ok(resolved) => format!("{:#}", printed(&resolved)),
        Err(error) => line(&error),
    }
}

fn print(text: &str) -> String {
    print_with(&[("docker-bake.hcl", text)], &[], &[], &[])
}

#[test]
fn inheritance_groups_and_functions() {
    let text = r#"
variable "TAG" { default = "latest" }
variable "DEBUG" { default = false }
REGISTRY = "registry.example/team"

function "image" {
  params = [name]
  variadic_params = suffixes
  result = "${REGISTRY}/${name}:${join("-", concat([TAG], suffixes))}"
}

group "default" { targets = ["web", "tools"] }
group "tools" { targets = ["cli"] }

target "_common" {
  args = { GO = "1.22", MODE = DEBUG ? "debug" : "release" }
  labels = { "org.example.kind" = "app" }
  platforms = ["linux/amd64"]
  cache-from = ["registry.example/cache"]
}
target "web" {
  inherits = ["_common"]
  context = "./web"
  args = { GO = "1.23", NOTHING = null }
  tags = [image("web"), image("web", "slim"), ""]
  output = ["type=oci,dest=web.tar"]
  secret = [{ id = "token", src = "token.txt" }, "id=other,env=OTHER"]
}
target "cli" {
  inherits = ["_common"]
  tags = [for n in ["a", "b"] : upper(n) == "A" ? "cli-${n}" : "x-${n}"]
  contexts = { base = "target:web" }
  platforms = ["linux/amd64", "linux/amd64"]
}
"#;
    insta::assert_snapshot!(print(text), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "tools",
            "web"
          ]
        },
        "tools": {
          "targets": [
            "cli"
          ]
        }
      },
      "target": {
        "cli": {
          "context": ".",
          "contexts": {
            "base": "target:web"
          },
          "dockerfile": "Dockerfile",
          "args": {
            "GO": "1.22",
            "MODE": "release"
          },
          "labels": {
            "org.example.kind": "app"
          },
          "tags": [
            "cli-a",
            "x-b"
          ],
          "cache-from": [
            {
              "ref": "registry.example/cache",
              "type": "registry"
            }
          ],
          "platforms": [
            "linux/amd64"
          ]
        },
        "web": {
          "context": "./web",
          "dockerfile": "Dockerfile",
          "args": {
            "GO": "1.23",
            "MODE": "release"
          },
          "labels": {
            "org.example.kind": "app"
          },
          "tags": [
            "registry.example/team/web:latest",
            "registry.example/team/web:latest-slim"
          ],
          "cache-from": [
            {
              "ref": "registry.example/cache",
              "type": "registry"
            }
          ],
          "secret": [
            {
              "id": "token",
              "src": "token.txt"
            },
            {
              "env": "OTHER",
              "id": "other"
            }
          ],
          "platforms": [
            "linux/amd64"
          ],
          "output": [
            {
              "dest": "web.tar",
              "type": "oci"
            }
          ]
        }
      }
    }
    "#);
}

#[test]
fn a_matrix_gives_a_group() {
    let text = r#"
target "app" {
  name = "app-${item.os}-${replace(version, ".", "_")}"
  matrix = {
    version = ["1.0", "2.0"]
    item = [{ os = "alpine", size = 1 }, { os = "debian", size = 2 }]
  }
  description = "for ${item.os}"
  args = { VERSION = version, SIZE = item.size }
  tags = ["${target.base.args.NAME}:${version}"]
}
target "base" { args = { NAME = "nginx" } }
"#;
    insta::assert_snapshot!(print_with(&[("docker-bake.hcl", text)], &["app"], &["app-alpine-*.args.SIZE=9"], &[]), @r#"
    {
      "group": {
        "app": {
          "targets": [
            "app-alpine-1_0",
            "app-alpine-2_0",
            "app-debian-1_0",
            "app-debian-2_0"
          ]
        },
        "default": {
          "targets": [
            "app"
          ]
        }
      },
      "target": {
        "app-alpine-1_0": {
          "description": "for alpine",
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "SIZE": "9",
            "VERSION": "1.0"
          },
          "tags": [
            "nginx:1.0"
          ]
        },
        "app-alpine-2_0": {
          "description": "for alpine",
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "SIZE": "9",
            "VERSION": "2.0"
          },
          "tags": [
            "nginx:2.0"
          ]
        },
        "app-debian-1_0": {
          "description": "for debian",
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "SIZE": "2",
            "VERSION": "1.0"
          },
          "tags": [
            "nginx:1.0"
          ]
        },
        "app-debian-2_0": {
          "description": "for debian",
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "SIZE": "2",
            "VERSION": "2.0"
          },
          "tags": [
            "nginx:2.0"
          ]
        }
      }
    }
    "#);
}

#[test]
fn what_is_set_goes_before_the_file() {
    let text = r#"
target "app" {
  tags = ["app:1"]
  args = { A = "file" }
  output = ["type=docker"]
  platforms = ["linux/amd64"]
}
target "web" {}
"#;
    let set = [
        "*.args.A=set",
        "app.args.FROM_ENV",
        "app.args.UNSET",
        "app.tags+=app:2",
        "app.platform=linux/arm64",
        "app.platform=linux/riscv64",
        "web.no-cache=true",
        "web.push=true",
        "web.secrets=id=a,src=b",
        "app.output=",
    ];
    let files = [("docker-bake.hcl", text)];
    insta::assert_snapshot!(print_with(&files, &["app", "web"], &set, &[("FROM_ENV", "yes")]), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "app",
            "web"
          ]
        }
      },
      "target": {
        "app": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "A": "set",
            "FROM_ENV": "yes"
          },
          "tags": [
            "app:1",
            "app:2"
          ],
          "platforms": [
            "linux/arm64",
            "linux/riscv64"
          ]
        },
        "web": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "A": "set"
          },
          "secret": [
            {
              "id": "a",
              "src": "b"
            }
          ],
          "output": [
            {
              "push": "true",
              "type": "image"
            }
          ],
          "no-cache": true
        }
      }
    }
    "#);
}

#[test]
fn variables_come_from_the_environment_and_have_types() {
    let text = r#"
variable "NUMBER" { default = 1 }
variable "FLAG" { default = false }
variable "LIST" {
  type = list(string)
  default = ["a"]
}
variable "MAP" {
  type = object({ name = string, port = optional(number) })
  default = { name = "x" }
}
variable "UNSET" {}
variable "CHECKED" {
  default = "abc"
  validation {
    condition = CHECKED == "" || can(regex("^[a-z]+$", CHECKED))
    error_message = "use letters, not ${CHECKED}"
  }
}
target "default" {
  args = {
    NUMBER = NUMBER + 1
    FLAG = FLAG ? "on" : "off"
    LIST = join("+", LIST)
    MAP = "${MAP.name}:${MAP.port == null ? "none" : MAP.port}"
    UNSET = "<${UNSET}>"
  }
}
"#;
    let files = [("docker-bake.hcl", text)];
    let environment =
        [("NUMBER", "41"), ("FLAG", "1"), ("LIST", "x,\"y,z\""), ("MAP_JSON", r#"{"name":"n","port":80}"#)];
    insta::assert_snapshot!(print_with(&files, &[], &[], &environment), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "default"
          ]
        }
      },
      "target": {
        "default": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "FLAG": "on",
            "LIST": "x+y,z",
            "MAP": "n:80",
            "NUMBER": "42",
            "UNSET": "<>"
          }
        }
      }
    }
    "#);
    insta::assert_snapshot!(print_with(&files, &[], &[], &[("CHECKED", "A1"), ("NUMBER", "many")]), @r#"
    docker-bake.hcl:2: `1`: variable NUMBER: "many" is no number
    docker-bake.hcl:16: `CHECKED == "" || can(regex("^[a-z]+$", CHECKED))`: variable CHECKED: use letters, not A1
    "#);
}

#[test]
fn templates_and_heredocs() {
    let text = r#"
names = ["a", "b"]
target "default" {
  dockerfile-inline = <<-EOT
    FROM scratch
    %{ for name in names ~}
    COPY ${name} /${name}
    %{ endfor ~}
    ENV A=$${A}
  EOT
  args = {
    if = "%{ if length(names) > 1 }many%{ else }one%{ endif }"
    whole = length(names)
    escaped = "a\tb\"$${x}"
  }
}
"#;
    insta::assert_snapshot!(print(text), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "default"
          ]
        }
      },
      "target": {
        "default": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "dockerfile-inline": "FROM scratch\nCOPY a /a\nCOPY b /b\nENV A=$${A}\n",
          "args": {
            "escaped": "a\tb\"$${x}",
            "if": "many",
            "whole": "2"
          }
        }
      }
    }
    "#);
}

#[test]
fn json_says_the_same_as_hcl() {
    let json = r#"{
  "variable": { "TAG": { "default": "1" }, "N": { "type": "number", "default": 2 } },
  "function": { "twice": { "params": ["text"], "result": "${text}${text}" } },
  "group": { "default": { "targets": ["app"] } },
  "target": {
    "app":
      { "tags": ["app:${TAG}", "\u0061pp:\ud83d\ude00\/"],
        "args": {
          "N": "${N + 1}",
          "TWICE": "${twice(\"x\")} $${kept} 100%",
          "INNER": "${regex_replace(\"a1{}\", \"\\\\d\\\\${\"{\"}\", \"\\\"}\")}|\\n"
        } }
  }
}"#;
    insta::assert_snapshot!(print_with(&[("docker-bake.json", json)], &[], &[], &[]), @r#"
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
          "context": ".",
          "dockerfile": "Dockerfile",
          "args": {
            "INNER": "a\"}}|\\n",
            "N": "3",
            "TWICE": "xx $${kept} 100%"
          },
          "tags": [
            "app:1",
            "app:😀/"
          ]
        }
      }
    }
    "#);
    insta::assert_snapshot!(print_with(&[("docker-bake.json", "{\n \"target\": {]\n}")], &[], &[], &[]), @r#"
    docker-bake.json:2: `]`: key must be a string
    "#);
}

#[test]
fn later_files_are_laid_over_earlier_ones() {
    let files = [
        ("compose.yaml", "services:\n  app:\n    build: ./app\n    image: app:compose\n"),
        ("docker-bake.hcl", "variable \"V\" { default = \"1\" }\ntarget \"app\" { args = { V = V } }\n"),
        (
            "docker-bake.override.hcl",
            "variable \"V\" { default = \"2\" }\ntarget \"app\" { tags = [\"app:override\"] }\n",
        ),
    ];
    insta::assert_snapshot!(print_with(&files, &[], &[], &[]), @r#"
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
          "context": "./app",
          "dockerfile": "Dockerfile",
          "args": {
            "V": "2"
          },
          "tags": [
            "app:override"
          ]
        }
      }
    }
    "#);
}

#[test]
fn compose_files() {
    let text = r#"
x-args: &args
  COMMON: yes
services:
  web.front:
    image: ${REPO}/web:${TAG:-latest}
    environment:
      FROM_SERVICE: here
    build:
      context: ./web
      dockerfile: web.Dockerfile
      args:
        <<: *args
        FROM_SERVICE:
        FROM_ENV:
        MISSING:
        MODE: 0755
      additional_contexts:
        base: service:base
      cache_from: ["web:cache"]
      secrets: [token]
      ulimits:
        nofile: { soft: 1, hard: 2 }
        nproc: 3
      extra_hosts: ["one=10.0.0.1"]
      shm_size: 128m
      x-bake:
        platforms: linux/amd64 linux/arm64
        tags: [web:extra]
        output: type=docker
  base:
    build: { context: ., target: base, no_cache: true }
  database:
    image: postgres
secrets:
  token: { environment: TOKEN }
"#;
    let environment = [("REPO", "team"), ("FROM_ENV", "env")];
    insta::assert_snapshot!(print_with(&[("compose.yaml", text)], &[], &[], &environment), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "base",
            "web_front"
          ]
        }
      },
      "target": {
        "base": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "target": "base",
          "no-cache": true
        },
        "web_front": {
          "context": "./web",
          "contexts": {
            "base": "target:base"
          },
          "dockerfile": "web.Dockerfile",
          "args": {
            "COMMON": "yes",
            "FROM_ENV": "env",
            "FROM_SERVICE": "here",
            "MODE": "0755"
          },
          "tags": [
            "web:extra"
          ],
          "cache-from": [
            {
              "ref": "web:cache",
              "type": "registry"
            }
          ],
          "secret": [
            {
              "env": "TOKEN",
              "id": "token"
            }
          ],
          "platforms": [
            "linux/amd64",
            "linux/arm64"
          ],
          "output": [
            {
              "type": "docker"
            }
          ],
          "shm-size": "128m",
          "ulimits": [
            "nofile=1:2",
            "nproc=3:3"
          ],
          "extra-hosts": {
            "one": "10.0.0.1"
          }
        }
      }
    }
    "#);
    let wrong = "services:\n  web:\n    build:\n      contxt: .\n";
    insta::assert_snapshot!(print_with(&[("compose.yaml", wrong)], &[], &[], &[]), @r#"
    compose.yaml:4: `contxt`: service web: build: contxt: there is no such key (did you mean context?)
    "#);
    let broken = "services:\n  web: [\n";
    insta::assert_snapshot!(print_with(&[("compose.yaml", broken)], &[], &[], &[]), @r#"
    compose.yaml:2: `  web: [`: unclosed bracket '['
    "#);
}

#[test]
fn mistakes_have_their_places() {
    let cases = [
        "target \"a\" {\n  tags = [upper(1, 2)]\n}",
        "target \"a\" {\n  tags = \"x\"\n}",
        "target \"a\" {\n  tag = []\n}",
        "targt \"a\" {}",
        "target \"a b\" {}",
        "target {}",
        "target \"a\" {\n  args {\n    X = 1\n  }\n}",
        "target \"a\" {\n  tags = [\"${one}\"]\n}\none = two\ntwo = one",
        "function \"f\" {\n  params = [x]\n  result = f(x)\n}\ntarget \"a\" { tags = [f(1)] }",
        "target \"a\" {\n  matrix = { x = [1, 2] }\n}",
        "target \"a\" {\n  name = \"b\"\n}",
        "target \"a\" {\n  matrix = { x = [1, 2] }\n  name = \"b\"\n}",
        "target \"a\" {\n  tags = [target.a.tags[0]]\n}",
        "target \"a\" {\n  args = { X = [1] }\n}",
        "target \"a\" {\n  tags = [{ a = 1 }.b]\n}",
        "target \"a\" {",
        "variable \"V\" {\n  type = strng\n}",
        "variable \"V\" {\n  type = number\n  default = \"x\"\n}",
    ];
    let found: Vec<String> = cases.iter().map(|text| print_with(&[("f", text)], &["a"], &[], &[])).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    f:2: `upper(1, 2)`: upper takes 1 argument, not 2
    f:2: `"x"`: tags: a list is needed, not a string
    f:2: `tag`: a target has no attribute tag (did you mean tags?)
    f:1: `targt`: there are no blocks of the kind targt (did you mean target?)
    f:1: `"a b"`: "a b" is no name of a target (use letters, digits, - and _)
    f:1: `target`: a target has one name: target "NAME" { … }
    f:2: `args`: blocks are not allowed here (write args = { … })
    f:5: `one`: variable one depends on itself
    f:4: `two`: variable two depends on itself
    f:3: `f(x)`: function f depends on itself
    f:2: `{ x = [1, 2] }`: a target with a matrix needs a name made of its values (name = "a-${x}")
    f:2: `"b"`: a target has a name of its own only with a matrix
    f:3: `"b"`: two targets of the matrix have the name b
    f:2: `target.a.tags[0]`: target.a.tags depends on itself
    f:2: `{ X = [1] }`: args: X: a string is needed, not a list
    f:2: `{ a = 1 }.b`: there is no "b" in it (did you mean a?)
    f:1: `{`: invalid block body, expected `}`, newline or identifier
    f:2: `strng`: there is no type strng (did you mean string?)
    f:3: `"x"`: variable V: a number is needed, not "x"
    "#);
}

#[test]
fn names_that_do_not_exist() {
    let text = r#"
group "all" { targets = ["ok", "wbe"] }
group "loop" { targets = ["loop", "app"] }
target "app" { inherits = ["bas"] }
target "base" { contexts = { x = "target:web" } }
target "web" { contexts = { x = "target:base" } }
target "self" { inherits = ["self"] }
target "ok" {}
"#;
    let ask = |names: &[&str], set: &[&str]| print_with(&[("docker-bake.hcl", text)], names, set, &[]);
    let found = [
        ask(&[], &[]),
        ask(&["all"], &[]),
        ask(&["loop"], &[]),
        ask(&["web"], &[]),
        ask(&["self"], &[]),
        ask(&["x*"], &[]),
        ask(&["ok"], &["okk.tags=x"]),
        ask(&["ok"], &["ok"]),
        ask(&["ok"], &["ok.args=1"]),
        ask(&["ok"], &["ok.pull=maybe"]),
    ];
    insta::assert_snapshot!(found.join("\n"), @r#"
    there is no target default (there are: all, loop, app, base, web, self, ok)
    there is no target wbe (did you mean web?)
    there is no target bas, from which app inherits (did you mean base?)
    target web links to itself: web -> base -> web
    target self inherits from itself
    no target matches x*
    --set okk.tags: no target matches (did you mean ok?)
    --set ok: it has the form TARGET.KEY=VALUE
    --set ok.args=1: args needs a name: TARGET.args.NAME=VALUE
    --set ok.pull: `maybe` is neither true nor false
    "#);
}

#[test]
fn targets_are_flags_of_build() {
    let text = r#"
target "default" {
  context = "dir"
  dockerfile = "sub/Dockerfile.x"
  args = { A = "1 2" }
  contexts = { tree = "cwd://tree", base = "docker-image://alpine", other = "target:other" }
  tags = ["app"]
  output = ["type=image,push=true", { type = "image", name = "a,b" }]
  extra-hosts = { h = "10.0.0.1,10.0.0.2" }
  no-cache-filter = ["x"]
  pull = true
  ssh = ["default=/agent"]
  resources = { memory = "1g" }
}
target "other" {}
"#;
    let loaded = load(&[BakeFile::new("docker-bake.hcl", text)], &around(&[])).unwrap();
    let resolved = loaded.resolve(&[], &[]).unwrap();
    let lines: Vec<String> =
        resolved.targets.iter().map(|target| format!("{}: {}", target.name, flags(&target.target).join(" "))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    other: -- .
    default: --build-arg=A=1 2 --resource=memory=1g --tag=app --no-cache-filter=x --pull --ssh=default=/agent --push --output="name=a,b",type=image --add-host=h=10.0.0.1 --add-host=h=10.0.0.2 --build-context=base=docker-image://alpine --build-context=tree=tree --file=dir/sub/Dockerfile.x -- dir
    "#);
}
