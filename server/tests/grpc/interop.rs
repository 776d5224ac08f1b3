//! Goal: gRPC's own interoperability cases pass ("gRPC Interop Test Case Descriptions", grpc/grpc/doc/interop-test-descriptions.md).
//! Method: their test service over our own HTTP/2 and frames, which exists in this test alone, and foreign clients: grpcio, and the
//! client that grpc-go has for it, where that is installed.

use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anvil::grpc::call::{Call, Calls, Wire};
use anvil::grpc::frame::Encoding;
use anvil::grpc::{Code, Status, services};
use anvil::http::{Head, Incoming, Outgoing, Response, Service};
use anvil::http1::Settings;
use anvil::listener::Frontend;
use anvil::telemetry::Metrics;
use anvil_model::ids::CoreId;
use anvil_model::io::World as _;
use anvil_node::get::Reader;
use anvil_runtime::{Core, Cores, Options, available_cpus, start};
use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;

use crate::support::clients::{find, is_installed, run};

/// What grpc-go's own client is called where `.ci/test` puts it.
const GO_CLIENT: &str = "grpc-go-interop-client";

/// The cases of a test service without metadata, compression or credentials.
const CASES: [&str; 12] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
];

#[test]
fn grpcio_passes_the_interoperability_cases() {
    let server = Server::start();
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new(find("python3"));
    command.arg(scripts.join("grpc_interop.py")).arg(server.address.to_string()).args(CASES);
    command.env("GRPC_ENABLE_FORK_SUPPORT", "0").env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1");
    println!("{}", run(&mut command));
}

#[test]
fn grpc_go_passes_the_interoperability_cases() {
    if !is_installed(GO_CLIENT) {
        println!("LEFT OUT: {GO_CLIENT} is not on the PATH.");
        return;
    }
    let server = Server::start();
    for case in CASES.iter().chain(&["unimplemented_service"]) {
        let mut command = Command::new(find(GO_CLIENT));
        command.args(["-server_host", "127.0.0.1", "-server_port", &server.address.port().to_string()]);
        run(command.args(["-test_case", case]).env("NO_PROXY", "*"));
        println!("{case}: passed");
    }
}

/// The test service behind our frontend, on one core.
struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    cores: Option<Cores>,
}

impl Server {
    fn start() -> Self {
        let counters = Metrics::new(1).core(CoreId(0));
        let (stop, stopped) = watch::channel(false);
        let (bound, addresses) = channel();
        let options = Options {
            cpus: available_cpus()[..1].to_vec(),
            buffers_per_core: 4,
            progress_reserve: 1,
            receive_buffers_per_core: 16,
            ..Options::default()
        };
        let cores = start(options, move |core| {
            let (counters, bound, mut stopped) = (counters.clone(), bound.clone(), stopped.clone());
            let service = OnlyCalls(TestService { core: core.clone() });
            async move {
                let frontend = Frontend::bind(&core, &["127.0.0.1:0".parse().unwrap()]).unwrap();
                bound.send(frontend.addresses()[0]).unwrap();
                let stop = async move {
                    let _ = stopped.wait_for(|&stopped| stopped).await;
                };
                let settings = Settings { stop_timeout: Duration::from_millis(200), ..Settings::default() };
                frontend.serve(Rc::new(service), settings, counters, stop).await;
            }
        })
        .unwrap();
        let address = addresses.recv_timeout(Duration::from_secs(60)).unwrap();
        Self { address, stop, cores: Some(cores) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send(true).unwrap();
        let joined = self.cores.take().unwrap().join();
        assert!(std::thread::panicking() || joined.is_ok(), "{joined:?}");
    }
}

/// What answers nothing but calls.
struct OnlyCalls(TestService);

impl Service for OnlyCalls {
    type Pieces = Reader<Core>;

    async fn call<I: Incoming>(&self, head: &Head, _: &mut I) -> Response<Self::Pieces> {
        self.refusal(404, "NotFound", "here are calls alone", &head.request_id)
    }

    fn refusal(&self, status: u16, _: &str, message: &str, _: &str) -> Response<Self::Pieces> {
        let body = Outgoing::Bytes(message.as_bytes().to_vec());
        Response { status, headers: Vec::new(), body }
    }

    fn grpc(&self) -> Option<&impl Calls> {
        Some(&self.0)
    }
}

/// `grpc.testing.TestService`, as far as the cases go.
struct TestService {
    core: Core,
}

impl Calls for TestService {
    async fn serve<W: Wire>(&self, head: &Head, _: bool, encoding: Encoding, wire: &mut W) -> Result<(), Status> {
        let mut call = Call::new(head, encoding, wire);
        match head.path.as_str() {
            "/grpc.testing.TestService/EmptyCall" => {
                call.only_message::<Empty>().await?;
                call.answer(&Empty {}).await
            }
            "/grpc.testing.TestService/UnaryCall" => {
                let request: SimpleRequest = call.only_message().await?;
                echo(request.response_status)?;
                call.answer(&SimpleResponse { payload: Some(Payload::of(request.response_size)) }).await
            }
            "/grpc.testing.TestService/StreamingInputCall" => {
                let mut aggregated_payload_size = 0;
                while let Some(request) = call.message::<StreamingInputCallRequest>().await? {
                    let length = request.payload.unwrap_or_default().body.len();
                    aggregated_payload_size += i32::try_from(length).unwrap();
                }
                call.answer(&StreamingInputCallResponse { aggregated_payload_size }).await
            }
            "/grpc.testing.TestService/StreamingOutputCall" => {
                let request: StreamingOutputCallRequest = call.only_message().await?;
                self.stream(&mut call, request).await
            }
            "/grpc.testing.TestService/FullDuplexCall" => {
                while let Some(request) = call.message::<StreamingOutputCallRequest>().await? {
                    self.stream(&mut call, request).await?;
                }
                Ok(())
            }
            path => Err(services::unknown(path)),
        }
    }
}

impl TestService {
    async fn stream<W: Wire>(&self, call: &mut Call<'_, W>, request: StreamingOutputCallRequest) -> Result<(), Status> {
        echo(request.response_status)?;
        for ResponseParameters { size, interval_us } in request.response_parameters {
            self.core.sleep(Duration::from_micros(interval_us.try_into().unwrap())).await;
            call.answer(&StreamingOutputCallResponse { payload: Some(Payload::of(size)) }).await?;
        }
        Ok(())
    }
}

/// The status that a request asks for.
fn echo(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::of(code.try_into().unwrap()), "ECHO", message))
        }
        _ => Ok(()),
    }
}

// Of grpc/testing/messages.proto, what the cases need.

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

impl Payload {
    fn of(size: i32) -> Self {
        Self { body: vec![0; size.try_into().unwrap()].into() }
    }
}

#[derive(Clone, PartialEq, Message)]
struct EchoStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct SimpleRequest {
    #[prost(int32, tag = "2")]
    response_size: i32,
    #[prost(message, optional, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct SimpleResponse {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamingInputCallRequest {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamingInputCallResponse {
    #[prost(int32, tag = "1")]
    aggregated_payload_size: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseParameters {
    #[prost(int32, tag = "1")]
    size: i32,
    #[prost(int32, tag = "2")]
    interval_us: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StreamingOutputCallRequest {
    #[prost(message, repeated, tag = "2")]
    response_parameters: Vec<ResponseParameters>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamingOutputCallResponse {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}
