//! The driver as Docker talks to it, without a vswitchd.

use clap::Parser as _;
use serde_json::{Value, json};

use super::*;

/// A driver whose vswitchd is not there.
fn driver(dir: &tempfile::TempDir, words: &[&str]) -> Driver {
    let state = dir.path().join("state").display().to_string();
    let vswitchd = dir.path().join("vswitchd.sock").display().to_string();
    let ours = ["x", "--state-dir", &state, "--vswitchd", &vswitchd];
    Driver::open(&Options::try_parse_from(ours.iter().chain(words)).unwrap()).unwrap()
}

async fn ask(driver: &Driver, method: &str, question: Value) -> Result<Value, Refusal> {
    driver.call(method, question.to_string().as_bytes()).await
}

async fn pool(driver: &Driver, question: Value) -> Result<String, Refusal> {
    let answer = ask(driver, "IpamDriver.RequestPool", question).await?;
    Ok(answer["PoolID"].as_str().unwrap().to_owned())
}

async fn address(driver: &Driver, pool: &str, address: &str) -> Result<String, Refusal> {
    let question = json!({ "PoolID": pool, "Address": address, "Options": null });
    let answer = ask(driver, "IpamDriver.RequestAddress", question).await?;
    Ok(answer["Address"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn pools_and_addresses_are_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &[]);
    let ask_pool = |subnet: &str, range: &str| json!({ "AddressSpace": "s", "Pool": subnet, "SubPool": range, "Options": null, "V6": false });
    let id = pool(&driver, ask_pool("10.77.0.0/24", "10.77.0.8/30")).await.unwrap();
    assert!(pool(&driver, ask_pool("10.77.0.0/16", "")).await.unwrap_err().text.contains("another network"));
    assert!(pool(&driver, ask_pool("10.78.0.0/24", "10.79.0.0/30")).await.is_err());
    assert!(pool(&driver, ask_pool("", "10.79.0.0/30")).await.is_err());
    let gateway = json!({ "RequestAddressType": "com.docker.network.gateway" });
    let question = json!({ "PoolID": id, "Address": "", "Options": gateway });
    let answer = ask(&driver, "IpamDriver.RequestAddress", question).await.unwrap();
    assert_eq!(answer["Address"], "10.77.0.1/24");
    assert_eq!(address(&driver, &id, "10.77.0.10").await.unwrap(), "10.77.0.10/24");
    assert!(address(&driver, &id, "10.77.0.10").await.unwrap_err().text.contains("in use"));
    assert!(address(&driver, &id, "10.77.1.1").await.is_err());
    // All of the range are for interfaces, because the network is larger.
    for given in ["10.77.0.8/24", "10.77.0.9/24", "10.77.0.11/24"] {
        assert_eq!(address(&driver, &id, "").await.unwrap(), given);
    }
    let release = json!({ "PoolID": id, "Address": "10.77.0.9" });
    for _ in 0..2 {
        ask(&driver, "IpamDriver.ReleaseAddress", release.clone()).await.unwrap();
    }
    // It rests; who names it gets it.
    assert!(address(&driver, &id, "").await.unwrap_err().text.contains("its old owner"));
    assert_eq!(address(&driver, &id, "10.77.0.9").await.unwrap(), "10.77.0.9/24");
    for _ in 0..2 {
        ask(&driver, "IpamDriver.ReleasePool", json!({ "PoolID": id })).await.unwrap();
    }
    assert!(address(&driver, &id, "").await.unwrap_err().text.contains("not known"));
}

#[tokio::test]
async fn a_docker_that_starts_again_says_again_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let first = driver(&dir, &[]);
    let chosen = json!({ "AddressSpace": "s", "Pool": "", "V6": false });
    let id = pool(&first, chosen.clone()).await.unwrap();
    assert_eq!(id, "s/10.200.0.0/24/10.200.0.0/24");
    for given in ["10.200.0.1/24", "10.200.0.2/24"] {
        assert_eq!(address(&first, &id, "").await.unwrap(), given);
    }
    drop(first);
    // The driver alone: nothing is doubted.
    let again = driver(&dir, &[]);
    assert!(address(&again, &id, "10.200.0.2").await.is_err());
    assert_eq!(pool(&again, chosen).await.unwrap(), "s/10.200.1.0/24/10.200.1.0/24");
    // Docker too: it has the second address still, and has forgotten the first.
    ask(&again, "Plugin.Activate", json!({})).await.unwrap();
    let replayed = json!({ "AddressSpace": "s", "Pool": "10.200.0.0/24", "SubPool": "", "V6": false });
    assert_eq!(pool(&again, replayed.clone()).await.unwrap(), id);
    assert_eq!(address(&again, &id, "10.200.0.2").await.unwrap(), "10.200.0.2/24");
    assert!(address(&again, &id, "10.200.0.2").await.is_err());
    assert!(pool(&again, replayed).await.is_err());
    assert_eq!(address(&again, &id, "10.200.0.1").await.unwrap(), "10.200.0.1/24");
}

#[tokio::test]
async fn what_docker_has_forgotten_is_given_when_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &["--address-rest", "0"]);
    let question = json!({ "AddressSpace": "s", "Pool": "10.77.0.0/30", "V6": false });
    let id = pool(&driver, question.clone()).await.unwrap();
    for _ in 0..2 {
        address(&driver, &id, "").await.unwrap();
    }
    assert!(address(&driver, &id, "").await.unwrap_err().text.contains("2 are in use"));
    driver.doubt_pools().unwrap();
    pool(&driver, question).await.unwrap();
    assert_eq!(address(&driver, &id, "10.77.0.1").await.unwrap(), "10.77.0.1/30");
    assert_eq!(address(&driver, &id, "").await.unwrap(), "10.77.0.2/30");
    assert!(address(&driver, &id, "").await.is_err());
}

#[tokio::test]
async fn the_end_needs_nobody_and_the_beginning_says_who_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &[]);
    let network = json!({ "NetworkID": "n1", "Options": null, "IPv4Data": [], "IPv6Data": null });
    let refused = ask(&driver, "NetworkDriver.CreateNetwork", network.clone()).await.unwrap_err();
    assert!(refused.text.contains("is it running?"), "{refused}");
    let endpoint = json!({ "NetworkID": "n1", "EndpointID": "e1" });
    for method in
        ["Leave", "RevokeExternalConnectivity", "DeleteEndpoint", "DeleteEndpoint", "EndpointOperInfo"]
    {
        ask(&driver, &format!("NetworkDriver.{method}"), endpoint.clone()).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path().join("vswitchd.sock.departed")).unwrap().count(), 1);
    for method in ["DeleteNetwork", "FreeNetwork"] {
        ask(&driver, &format!("NetworkDriver.{method}"), network.clone()).await.unwrap();
    }
    let unknown = ask(&driver, "NetworkDriver.GwAllocCheck", json!({})).await.unwrap_err();
    assert!(unknown.is_unknown_method);
    for method in ["Join", "CreateEndpoint"] {
        let refused = ask(&driver, &format!("NetworkDriver.{method}"), endpoint.clone()).await.unwrap_err();
        assert!(refused.text.contains("not known"), "{refused}");
    }
}

#[tokio::test]
async fn a_swarms_networks_are_allocated_for_all_and_freed_by_any_manager() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &["--scope", "global", "--managed"]);
    let capabilities = ask(&driver, "NetworkDriver.GetCapabilities", json!({})).await.unwrap();
    assert_eq!(capabilities["Scope"], "global");
    let named = json!({ "NetworkID": "n1", "Options": {"switch": "web"}, "IPv4Data": [], "IPv6Data": null });
    let answer = ask(&driver, "NetworkDriver.AllocateNetwork", named).await.unwrap();
    assert_eq!(answer, json!({ "Options": {"switch": "web"} }));
    let wrong = json!({ "NetworkID": "n1", "Options": {"swich": "web"} });
    assert!(ask(&driver, "NetworkDriver.AllocateNetwork", wrong).await.is_err());
    // The switch cannot be made, and is not to stay half made.
    let made = json!({ "NetworkID": "n2", "Options": null });
    let refused = ask(&driver, "NetworkDriver.AllocateNetwork", made).await.unwrap_err();
    assert!(refused.text.contains("is it running?"), "{refused}");
    ask(&driver, "NetworkDriver.FreeNetwork", json!({ "NetworkID": "n3" })).await.unwrap();
    let left: Vec<_> = driver.networks.borrow().iter().map(|(id, _)| id.to_owned()).collect();
    assert_eq!(left, ["swarm-n2", "swarm-n3"], "taken away when vswitchd answers");
    // What this host is told of such a network.
    let told = json!({ "com.docker.network.generic": {"swarm-switch": "switches/docker-n2"} });
    let options = crate::options::NetworkOptions::read(&serde_json::from_value(told).unwrap()).unwrap();
    assert_eq!(options.switch.as_deref(), Some("switches/docker-n2"));
    assert_eq!(options.way_out, crate::options::WayOut::Host);
}

#[tokio::test]
async fn a_managers_addresses_are_of_other_hosts_too() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &["--managed", "--address-rest", "0"]);
    let question = json!({ "AddressSpace": "ferroflow-global", "Pool": "10.77.0.0/30", "V6": false });
    let id = pool(&driver, question.clone()).await.unwrap();
    let own = json!({ "AddressSpace": "ferroflow-local", "Pool": "10.77.0.0/30", "V6": false });
    assert_eq!(pool(&driver, own).await.unwrap(), "ferroflow-local/10.77.0.0/30/10.77.0.0/30");
    for _ in 0..2 {
        address(&driver, &id, "").await.unwrap();
    }
    // Docker has started again: it asks for that, and then says again what it has.
    assert!(pool(&driver, question.clone()).await.is_err());
    ask(&driver, "IpamDriver.GetCapabilities", json!({})).await.unwrap();
    assert_eq!(pool(&driver, question).await.unwrap(), id);
    assert!(address(&driver, &id, "").await.is_err(), "none is taken back");
    assert_eq!(address(&driver, &id, "10.77.0.1").await.unwrap(), "10.77.0.1/30");
}

#[tokio::test]
async fn an_address_that_is_given_again_ends_what_had_it_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &[]);
    let network = |id: &str| {
        let record = json!({ "switch": "switches/x", "is_made": true, "mtu": 0, "way_out": "host", "gateways": [], "routes": [], "is_leaving": false });
        driver.networks.borrow_mut().put(id, serde_json::from_value(record).unwrap()).unwrap();
    };
    let endpoint = |network: &str, id: &str, address: &str, is_joined: bool| {
        let record = json!({ "network": network, "interface": "", "addresses": [address], "mac": "", "port": "", "since": { "secs": 0, "nanos": 0 }, "is_joined": is_joined });
        driver.endpoints.borrow_mut().put(id, serde_json::from_value(record).unwrap()).unwrap();
    };
    network("n1");
    endpoint("n1", "lost", "10.0.0.5", false);
    endpoint("n1", "other", "10.0.0.6", false);
    endpoint("n1", "joined", "10.0.0.5", true);
    endpoint("n2", "elsewhere", "10.0.0.5", false);
    driver.replace_lost("n1", "new", &["10.0.0.5".parse().unwrap()]).await.unwrap();
    let left: Vec<_> = driver.endpoints.borrow().iter().map(|(id, _)| id.to_owned()).collect();
    assert_eq!(left, ["elsewhere", "joined", "other"]);
    // One that was never whole is not joined.
    let join = json!({ "NetworkID": "n1", "EndpointID": "other" });
    assert!(ask(&driver, "NetworkDriver.Join", join).await.unwrap_err().text.contains("no endpoint"));
    assert!(!driver.endpoints.borrow().get("other").unwrap().is_joined);
}

#[tokio::test]
async fn hostile_questions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(&dir, &[]);
    let whole =
        br#"{"AddressSpace":"s","Pool":"10.0.0.0/24","SubPool":"","Options":{"tenant":"a"},"V6":false}"#;
    for len in 0..whole.len() {
        assert!(driver.call("IpamDriver.RequestPool", &whole[..len]).await.is_err());
    }
    for (method, body) in [
        ("IpamDriver.RequestPool", r#"{"AddressSpace":"s","Pool":"10.0.0.1/24"}"#),
        ("IpamDriver.RequestPool", r#"{"AddressSpace":"s","Pool":"::/0/0"}"#),
        ("IpamDriver.RequestPool", r#"{"AddressSpace":"s","Options":{"tenant":"../x"}}"#),
        ("IpamDriver.RequestPool", r#"{"AddressSpace":"s","Options":{"tenant":1}}"#),
        ("IpamDriver.RequestAddress", r#"{"PoolID":"../../etc/passwd"}"#),
        ("NetworkDriver.Join", r#"{"NetworkID":1,"EndpointID":"e"}"#),
        ("NetworkDriver.CreateNetwork", "[]"),
        ("", "{}"),
    ] {
        assert!(driver.call(method, body.as_bytes()).await.is_err(), "{method} {body}");
    }
    let deep = "[".repeat(10_000);
    assert!(driver.call("NetworkDriver.Join", deep.as_bytes()).await.is_err());
}
