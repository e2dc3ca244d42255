//! k8s/: rendered as `kubectl apply -k` would, and run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::compose::{is_whole, secret};
use crate::http;
use crate::outages::{self, Deployment, Secrets};
use crate::run::{self, Finally, ROOT, ensure, podman, wait};

pub fn whole_life() -> Outcome {
    let program = std::env::var_os("TEST_KUBE_PLAY").unwrap_or_default();
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    run::output(Command::new("cp").arg("-R").arg(Path::new(ROOT).join("k8s")).arg(folder.path()))?;
    let overlay = folder.path().join("k8s/overlays/local");
    // A developer's own, if there are any.
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
    // Podman 4.3 mounts no Secret, and no kubelet is here to replace its files: folders of the host take their place.
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
    // Health and metrics are on a port of the pod that no Service has.
    wait("an answer", Duration::from_secs(10), || http::status(port, "/livez") == 404)?;
    wait("a record", Duration::from_secs(120), || http::status(port, "/api/v1/records/Fe") == 200)?;
    let ready = begin.elapsed();
    is_whole(port)?;
    // Another sandbox with another address, as when the pod is scheduled again.
    let pod = "records-mongo-pod";
    let replace = || podman(["pod", "stop", "--time", "60", pod]).and_then(|_| podman(["pod", "start", pod])).map(drop);
    let found = outages::all(&Deployment {
        port,
        app: "records-pod-records",
        mongo: "records-mongo-pod-mongo",
        host: "records-mongo",
        network: "kube-play",
        secrets: &secrets,
        replace: &replace,
    })?;
    run::output(play().arg("down").arg(&overlay))?;
    Ok(format!("ready {:.1} s after it was applied{found}", ready.as_secs_f32()))
}
