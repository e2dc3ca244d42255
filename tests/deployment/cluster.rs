//! The manifests in k8s/, rendered like `kubectl apply -k`, and run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Outcome;
use crate::compose::{HIT, LIST, MISS, is_whole, secret};
use crate::http;
use crate::images::MONGO;
use crate::outages::{self, Deployment, Secrets};
use crate::run::{self, Finally, PATIENCE, ROOT, ensure, podman, unique, wait};

pub fn whole_life() -> Outcome {
    let program = std::env::var_os("TEST_KUBE_PLAY").unwrap_or_default();
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    run::output(Command::new("cp").arg("-R").arg(Path::new(ROOT).join("k8s")).arg(folder.path()))?;
    let overlay = folder.path().join("k8s/overlays/local");
    // The copy must not use a developer's secrets.
    for name in ["store.secret.env", "mongo.secret.env"] {
        let _ = std::fs::remove_file(overlay.join(name));
    }
    let said = run::failure(Command::new("kubectl").arg("kustomize").arg(&overlay))?;
    ensure(said.contains("secret.env"), || format!("without passwords it says: {said}"))?;

    let write = |name: &str, text: String| std::fs::write(overlay.join(name), text).map_err(|error| error.to_string());
    let (password, root) = (secret()?, secret()?);
    write(
        "store.secret.env",
        format!("RECORDS_STORE=mongodb://records:{password}@records-mongo:27017/records?directConnection=true\n"),
    )?;
    write("mongo.secret.env", format!("MONGO_ROOT_PASSWORD={root}\nRECORDS_MONGO_PASSWORD={password}\n"))?;
    let file = overlay.join("kustomization.yaml");
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let text = text.replace("newName: localhost/records\n", "newName: localhost/records-test\n");
    let text = text.replace("newName: localhost/records-mongo\n", "newName: localhost/records-mongo-test\n");
    let text = text.replace("newTag: latest", "newTag: first");
    // Podman 4.3 cannot mount a Secret, and there is no kubelet to replace its files, so folders of the host are mounted.
    let secrets =
        Secrets::create(&folder.path().join("secrets"), ["store", "RECORDS_MONGO_PASSWORD", "MONGO_ROOT_PASSWORD"])?;
    secrets.write("records-mongo", &password, Some(&root))?;
    let mounted = |kind: &str, volume: &str, path: &Path| {
        format!(
            "  - target: {{kind: {kind}}}\n    patch: |-\n      - op: replace\n        path: /spec/template/spec/volumes/0\n        \
             value: {{name: {volume}, hostPath: {{path: {}, type: Directory}}}}\n",
            path.display()
        )
    };
    let patches =
        [mounted("Deployment", "store", &secrets.records), mounted("StatefulSet", "passwords", &secrets.mongo)];
    write("kustomization.yaml", text + &patches.concat())?;

    let port = http::free_port()?;
    let play = || Command::new(&program);
    let _down = Finally(|| drop(run::output(play().arg("down").arg(&overlay))));
    let begin = Instant::now();
    run::output(play().args(["up", "--publish", &format!("records={port}")]).arg(&overlay))?;
    // Health and metrics are on a port of the pod that the published Service does not have.
    wait("an answer", PATIENCE, || http::status(port, "/livez") == 404)?;
    wait("a record", PATIENCE, || http::status(port, "/api/v1/records/Fe") == 200)?;
    let ready = begin.elapsed();
    is_whole(port)?;
    let (app, mongo) = (container("records-pod")?, container("records-mongo-pod")?);
    // Podman ends the pod's sandbox with its only container, and starts another one with another address. Waits for the end of the old
    // one, which would stop the new container.
    let replace = || {
        podman(["stop", "--time", "60", &mongo])?;
        let pod = format!("pod={}", podman(["inspect", "--format", "{{.Pod}}", &mongo])?);
        let ended = || podman(["ps", "--quiet", "--filter", &pod]).is_ok_and(|running| running.is_empty());
        wait("the end of the pod's sandbox", PATIENCE, ended)?;
        podman(["start", &mongo]).map(drop)
    };
    let deployment = Deployment {
        port,
        app: &app,
        mongo: &mongo,
        host: "records-mongo",
        network: "kube-play",
        secrets: &secrets,
        replace: &replace,
    };
    outages::all(&deployment)?;
    let rendered = run::exact(Command::new("kubectl").arg("kustomize").arg(&overlay), Stdio::null())?;
    let jobs = backs_up_and_restores(&rendered, &secrets, &mongo)?;
    let sibling = takes_the_replica_of_a_sibling(&rendered, &deployment)?;
    is_whole(port)?;
    run::output(play().arg("down").arg(&overlay))?;
    Ok(format!("ready {:.1} s after it was applied; {jobs}; {sibling}", ready.as_secs_f32()))
}

/// Returns the container in `pod`. The rest of its name depends on the version of Podman.
fn container(pod: &str) -> Outcome {
    let names = podman(["ps", "--format", "{{.Names}}"])?;
    let name = names.lines().find(|name| name.starts_with(pod));
    name.map(str::to_owned).ok_or_else(|| format!("no container of {pod} runs:\n{names}"))
}

/// Starts another instance with the settings of the manifests while MongoDB is away. The headless Service's name, which both have,
/// leads it to the replica of the pod.
fn takes_the_replica_of_a_sibling(rendered: &str, deployment: &Deployment) -> Outcome {
    let settings = object(rendered, "ConfigMap", "records-")?;
    let settings = settings.lines().filter_map(|line| line.strip_prefix("  RECORDS_")?.split_once(": "));
    let settings: Vec<String> =
        settings.map(|(name, value)| format!("RECORDS_{name}={}", value.trim_matches(['"', '\'']))).collect();
    let mut flags = vec!["--network-alias", "records-siblings"];
    flags.extend(settings.iter().flat_map(|setting| ["-e", setting]));
    // The backup has just replaced the records.
    let is_in_replica = || http::is_in_replica(deployment.port, HIT);
    wait("the restored records in the replica of the pod", PATIENCE, is_in_replica)?;
    podman(["stop", "--time", "60", deployment.mongo])?;
    let name = unique("records-sibling");
    let _remove = Finally(|| drop(podman(["rm", "--force", &name])));
    let begin = Instant::now();
    let port = outages::start_instance(deployment, &name, &flags)?;
    let answered = wait("200 from the replica of a sibling", PATIENCE, || http::status(port, HIT) == 200);
    answered.map_err(|error| format!("{error}: {}", outages::log(&name)))?;
    let after = begin.elapsed();
    for path in [LIST, HIT, MISS] {
        let (found, expected) = (http::get(port, path)?, http::get(deployment.port, path)?);
        ensure(found.is_stale && found == expected, || format!("{path}: {found:?}"))?;
    }
    podman(["start", deployment.mongo])?;
    is_whole(port)?;
    Ok(format!(
        "without MongoDB, another instance answers from the replica of the pod after {:.1} s",
        after.as_secs_f32()
    ))
}

/// Returns the first object whose name begins with `name`.
fn object<'a>(rendered: &'a str, kind: &str, name: &str) -> Result<&'a str, String> {
    let (kind, name) = (format!("kind: {kind}\n"), format!("\n  name: {name}"));
    let mut objects = rendered.split("\n---\n");
    objects
        .find(|object| object.contains(&kind) && object.contains(&name))
        .ok_or_else(|| format!("there is no {kind} {name}"))
}

/// Runs the scripts of the two CronJobs in containers on the pods' network, since there is no cluster.
fn backs_up_and_restores(rendered: &str, secrets: &Secrets, mongo: &str) -> Outcome {
    let volume = unique("records-backup");
    podman(["volume", "create", &volume])?;
    let _remove = Finally(|| drop(podman(["volume", "rm", "--force", &volume])));
    let (backup, passwords) =
        (format!("{volume}:/backup"), format!("{}:/run/secrets/mongo:ro", secrets.mongo.display()));
    let job = |name: &str, environment: &[&str]| {
        let object = object(rendered, "CronJob", name)?;
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--network", "kube-play", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"]);
        command.args(["-v", &backup, "-v", &passwords, "-e", "RECORDS_MONGO_HOST=records-mongo"]);
        command.args(environment.iter().flat_map(|variable| ["-e", variable]));
        command.args([MONGO, "bash", "-euo", "pipefail", "-c", &script(object)]);
        run::output(&mut command)
    };
    let saved = job(
        "records-mongo-backup",
        &["RECORDS_MONGO_USERNAME=records", "RECORDS_MONGO_PASSWORD_FILE=/run/secrets/mongo/RECORDS_MONGO_PASSWORD"],
    )?;
    let remove = "const { administrator } = require('/usr/local/share/records/common.js');
                  connect(administrator()).records.deleteMany({})";
    podman(["exec", "-e", "HOME=/tmp", mongo, "mongosh", "--quiet", "--nodb", "--eval", remove])?;
    let restored = job(
        "records-mongo-restore",
        &["MONGO_INITDB_ROOT_USERNAME=root", "MONGO_INITDB_ROOT_PASSWORD_FILE=/run/secrets/mongo/MONGO_ROOT_PASSWORD"],
    )?;
    let restored = restored.lines().last().unwrap_or_default();
    ensure(restored.contains("118 records restored"), || format!("the job says: {restored}"))?;
    Ok(format!("{saved}; {restored}"))
}

/// Returns the text below `- |` without its indentation.
fn script(object: &str) -> String {
    let mut lines = object.lines().skip_while(|line| line.trim() != "- |").skip(1).peekable();
    let depth = lines.peek().map_or(0, |line| line.len() - line.trim_start().len());
    let script = lines.take_while(|line| line.len() > depth && line[..depth].trim().is_empty());
    script.map(|line| format!("{}\n", &line[depth..])).collect()
}
