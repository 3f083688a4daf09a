//! Manifests as people have them.

use serde_json::{Value, json};

use super::*;

const FULL: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: other}
---
apiVersion: postgresql.cnpg.io/v1
kind: Pooler
metadata:
  name: mypg-yc-pooler
  namespace: mypg
  annotations: {a: b}
spec:
  cluster: {name: mypg-yc}
  type: rw
  instances: 3
  deploymentStrategy: {type: Recreate}
  serviceTemplate:
    metadata: {labels: {app: pooler}}
    spec: {type: LoadBalancer, loadBalancerIP: 10.0.0.9, ports: [{port: 6543}]}
  monitoring: {enablePodMonitor: true, tls: {enabled: true}}
  pgbouncer:
    poolMode: transaction
    paused: true
    authQuerySecret: {name: mypg-yc-pooler-cert}
    authQuery: SELECT usename, passwd FROM user_search($1)
    clientTLSSecret: {name: pooler-tls}
    clientCASecret: {name: clients-ca}
    serverCASecret: {name: servers-ca}
    pg_hba: ["host all all 10.0.0.0/8 trust"]
    parameters:
      max_client_conn: "1000"
      default_pool_size: "150"
      min_pool_size: "15"
      server_tls_sslmode: verify-full
      server_lifetime: "0"
      log_stats: "0"
      disable_pqexec: "1"
  template:
    metadata: {labels: {app: pooler}}
    spec:
      nodeSelector: {x: "y"}
      hostNetwork: true
      containers:
        - name: pgbouncer
          image: ghcr.io/cloudnative-pg/pgbouncer:1.22.1-6
          resources: {limits: {cpu: "0.5"}}
          env: [{name: A, value: B}]
        - {name: sidecar, image: x}
  surprise: 1
"#;

fn imported(text: &str) -> (Value, Imported) {
    let imported = import(text, Path::new("p.yaml"), None).unwrap();
    (serde_saphyr::from_str(&imported.text).unwrap(), imported)
}

#[test]
fn everything_of_a_pooler() {
    let (values, imported) = imported(FULL);
    assert_eq!(values["replicaCount"], 3);
    assert_eq!(values["cluster"], json!({"name": "mypg-yc", "role": "rw"}));
    assert_eq!(values["updateStrategy"], json!({"type": "Recreate"}));
    assert_eq!(
        values["service"],
        json!({"name": "mypg-yc-pooler", "type": "LoadBalancer", "port": 6543, "labels": {"app": "pooler"},
               "extraSpec": {"loadBalancerIP": "10.0.0.9"}})
    );
    assert_eq!(values["auth"]["secret"], "mypg-yc-pooler-cert");
    assert_eq!(
        values["auth"]["hba"],
        json!(["host all all 10.0.0.0/8 trust", "host all all all md5"])
    );
    assert!(values.get("shimPooler").is_none());
    assert_eq!(
        values["tls"],
        json!({"enabled": true, "mode": "prefer", "secret": "pooler-tls", "clientCA": {"secret": "clients-ca"}})
    );
    assert_eq!(
        values["serverTLS"],
        json!({"mode": "verify-full", "ca": {"secret": "servers-ca"}})
    );
    assert_eq!(values["config"]["pool"]["mode"], "transaction");
    assert_eq!(values["config"]["pool"]["default_pool_size"], 150);
    assert_eq!(values["config"]["pool"]["server_lifetime"], "1ms");
    assert_eq!(values["config"]["listen"], json!({"max_client_conn": 1000}));
    assert_eq!(values["podMonitor"], json!({"enabled": true}));
    assert_eq!(values["podLabels"], json!({"app": "pooler"}));
    assert_eq!(
        values["extraContainers"],
        json!([{"name": "sidecar", "image": "x"}])
    );
    assert_eq!(values["resources"], json!({"limits": {"cpu": "0.5"}}));
    for word in [
        "surprise",
        "hostNetwork",
        "env",
        "paused",
        "disable_pqexec",
        "monitoring.tls",
        "server_lifetime",
    ] {
        assert!(
            imported.warnings.iter().any(|warning| warning.contains(word)),
            "{word}: {:?}",
            imported.warnings
        );
    }
    assert!(imported.text.contains("log_stats = 0"), "{}", imported.text);
    assert_eq!(imported.warnings.len(), 8, "{:?}", imported.warnings);
}

/// The operator's defaults are PgBouncer's, which are others than the chart's.
#[test]
fn the_least_pooler() {
    let text = "apiVersion: postgresql.cnpg.io/v1\nkind: Pooler\nmetadata: {name: p}\nspec: {cluster: {name: c}, type: ro}\n";
    let (values, _) = imported(text);
    assert_eq!(
        (&values["replicaCount"], &values["cluster"]["role"]),
        (&json!(1), &json!("ro"))
    );
    assert_eq!(values["shimPooler"], json!({"enabled": true}));
    assert_eq!(values["config"]["pool"], json!({"mode": "session"}));
    assert_eq!(values["config"]["listen"], json!({"max_client_conn": 100}));
    assert_eq!(values["tls"]["secret"], "c-server");
    assert_eq!(values["serverTLS"], json!({"mode": "verify-ca"}));
}

#[test]
fn what_is_no_pooler_is_said() {
    let error = |text: &str| import(text, Path::new("p.yaml"), None).err().unwrap();
    assert!(error("kind: Cluster\n").contains("there is no Pooler"));
    assert!(error("a: [b\n").starts_with("p.yaml: "));
    let list = |name: &str| {
        format!(
            "- {{apiVersion: postgresql.cnpg.io/v1, kind: Pooler, metadata: {{name: {name}}}, spec: {{cluster: {{name: c}}}}}}\n"
        )
    };
    let both = format!("kind: List\nitems:\n{}{}", list("one"), list("two"));
    assert!(error(&both).contains("--name: one, two"));
    assert!(
        import(&both, Path::new("p.yaml"), Some("two"))
            .unwrap()
            .text
            .contains("\"two\"")
    );
    let wrong = FULL.replace("min_pool_size", "min_pol_size");
    assert!(error(&wrong).contains("min_pol_size: unknown setting\n  hint: did you mean `min_pool_size`?"));
    assert!(error(&FULL.replace("cluster: {name: mypg-yc}", "cluster: {}")).contains("spec.cluster.name"));
}
