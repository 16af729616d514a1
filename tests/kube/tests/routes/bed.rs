//! An API server, a manager per controller, API servers' ports that answer or not, and controllers as processes.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::{self, Command},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use kube_tests::{
    access::Keys,
    place::Place,
    stub::{Settings, Stub},
};
use netns_tests::{
    process::Process,
    scope::{Scope, binary},
    wait,
};
use nsxt_tests::{ADMIN, Server, World};
use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{net::TcpListener, task::JoinHandle};

/// For what takes as long as starting a process does.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a dead node may cost.
pub const BUDGET: Duration = Duration::from_secs(5);

pub const VIP: &str = "192.168.160.249";
pub const ROUTE: &str = "/infra/tier-1s/t1/static-routes/to-192.168.160.249";
pub const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";

/// What the tests share. Each controller has a manager of its own, which tells whose a request is.
pub struct Bed {
    pub stub: Stub,
    pub nsxt: Server,
    pub apis: Vec<Api>,
    keys: Keys,
    port: u16,
    pub scope: Scope,
}

/// A port of an API server that probes connect to.
pub struct Api {
    pub address: SocketAddr,
    serving: Option<JoinHandle<()>>,
    /// A queue that is full: connections get no answer.
    full: Option<(Socket, TcpStream)>,
}

impl Api {
    async fn start(address: SocketAddr) -> Result<Self> {
        let mut api = Self { address, serving: None, full: None };
        api.speak().await?;
        Ok(api)
    }

    /// Answers.
    pub async fn speak(&mut self) -> Result<()> {
        self.full = None;
        // A process that another test starts has a copy of the socket until it runs its program.
        let bind = || async { Ok(TcpListener::bind(self.address).await?) };
        let (listener, _) = wait::until(&format!("listening on {}", self.address), BUDGET, bind).await?;
        self.address = listener.local_addr()?;
        self.serving = Some(tokio::spawn(async move { while listener.accept().await.is_ok() {} }));
        Ok(())
    }

    /// Says nothing any more, as a node that is gone.
    pub async fn fall_silent(&mut self) -> Result<()> {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await; // it was told to end
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&self.address.into())?;
        socket.listen(0)?;
        let first = TcpStream::connect(self.address)?; // a backlog of 0 takes one
        self.full = Some((socket, first));
        Ok(())
    }
}

/// A controller.
pub struct Controller {
    pub process: Process,
    http: SocketAddr,
}

impl Bed {
    /// With so many controllers to come, and three API servers on addresses of loopback.
    pub async fn new(controllers: usize) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let scope = Scope::new()?;
        let keys = Keys::new(&scope)?;
        let stub = Stub::start(&scope, &keys, &Place::loopback(), Settings::default())?;
        let nsxt = Server::start(controllers).await;
        nsxt.world.add_gateway("/infra/tier-1s/t1", "t1", None);
        fs::write(scope.file("nsxt-ca.pem"), nsxt.authority.pem())?;
        fs::write(scope.file("nsxt-password"), ADMIN.1)?;
        let mut apis: Vec<Api> = Vec::new();
        for _ in 0..3 {
            // 127.128.0.0/9, apart from the addresses of places: those of another process have another port.
            let number = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) | (process::id() & 0x7fff) << 8;
            let address = IpAddr::from(Ipv4Addr::from_bits(0x7f80_0000 | number));
            let port = apis.first().map_or(0, |api| api.address.port());
            apis.push(Api::start(SocketAddr::new(address, port)).await?);
        }
        let port = apis[0].address.port();
        let bed = Self { stub, nsxt, apis, keys, port, scope };
        bed.name(&[true, true, true])?;
        Ok(bed)
    }

    pub fn world(&self) -> &World {
        &self.nsxt.world
    }

    /// The API names servers, and which are ready.
    pub fn name(&self, ready: &[bool]) -> Result<()> {
        let endpoint =
            |(api, ready): (&Api, &bool)| json!({ "addresses": [api.address.ip()], "conditions": { "ready": ready } });
        let endpoints: Vec<_> = self.apis.iter().zip(ready).map(endpoint).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" },
            },
            "endpoints": endpoints,
            "ports": [{ "name": "https", "port": self.port, "protocol": "TCP" }],
        });
        self.stub.put(SLICE, slice).map_err(|failure| anyhow::anyhow!("{failure:?}"))
    }

    /// Starts a controller with this manager.
    pub fn controller(&self, number: usize) -> Result<Controller> {
        let kubeconfig = self.stub.access().kubeconfig(&self.scope, "kubeconfig", &self.keys.admin)?;
        let http = std::net::TcpListener::bind((Place::loopback().address(), 0))?.local_addr()?;
        let manager = &self.nsxt.urls()[number];
        let port = self.port;
        let text = format!(
            "kubeconfig: {}\nidentity: n{number}\nhttp: {http}\nlog: {{format: json}}\n\
             controlPlane: {{vips: [{VIP}], serverPort: {port}, probe: {{tcp: {{}}}}}}\n\
             nsxt: {{cluster: c1, managers: [\"{manager}\"], tier1: t1, username: {}, passwordFile: nsxt-password, caFile: nsxt-ca.pem}}\n",
            kubeconfig.display(),
            ADMIN.0
        );
        let config = self.scope.file(&format!("controller-{number}.yaml"));
        fs::write(&config, text)?;
        let mut command = Command::new(binary("lb-agent")?);
        command.arg("controller").arg("--config").arg(config);
        Ok(Controller { process: Process::spawn(&self.scope, &format!("controller-{number}"), &mut command)?, http })
    }

    /// The addresses of these servers, as a route has them.
    fn addresses(&self, servers: &[usize]) -> Vec<String> {
        let addresses: BTreeSet<_> = servers.iter().map(|server| self.apis[*server].address.ip()).collect();
        addresses.iter().map(ToString::to_string).collect()
    }

    /// The next hops of the route, as they were written last.
    pub fn hops(&self) -> Vec<String> {
        let route = self.world().route(ROUTE).unwrap_or_default();
        let hops = route["next_hops"].as_array().cloned().unwrap_or_default();
        hops.iter().filter_map(|hop| hop["ip_address"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until the next hops are these servers; how long it took.
    pub async fn has(&self, servers: &[usize], within: Duration) -> Result<Duration> {
        let expected = self.addresses(servers);
        let look = || async {
            let hops = self.hops();
            ensure!(hops == expected, "{hops:?} instead of {expected:?}");
            Ok(())
        };
        Ok(wait::until("the next hops", within, look).await?.1)
    }

    /// Managers that were asked, each of which is one controller's.
    pub fn asked(&self) -> BTreeSet<usize> {
        self.world().requests().iter().map(|request| request.node).collect()
    }
}

impl Controller {
    /// The lines of its log with this message, with their fields.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.process.log()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Waits until it said this so many times.
    pub async fn says(&self, message: &str, times: usize) -> Result<()> {
        let look = || async {
            let found = self.logged(message).len();
            ensure!(found >= times, "{found} of {times}; {}", self.process.log_tail(30));
            Ok(())
        };
        wait::until(message, PATIENCE, look).await.map(drop)
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Vec<String>> {
        let mut stream = TcpStream::connect(self.http)?;
        SockRef::from(&stream).set_read_timeout(Some(BUDGET))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}
