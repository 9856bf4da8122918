//! The number of aggregators of a running server is changed again and again until it is no more.

use std::path::PathBuf;
use std::time::Duration;

use barline_proto::barline::ScaleRequest;
use barline_proto::barline::admin_client::AdminClient;
use tonic::Code;
use tonic::transport::Endpoint;

/// Asks the server of `data` for other numbers until it does not answer any more. A number out of the present bounds is
/// refused.
pub async fn change(data: PathBuf, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let endpoint = Endpoint::from_shared(format!("unix:{}/admin.sock", data.display())).unwrap();
    let Ok(channel) = endpoint.connect().await else { return };
    let mut client = AdminClient::new(channel);
    loop {
        let request = ScaleRequest { stage: "aggregate".into(), instances: Some(random.u32(1..5)) };
        match client.scale(request).await {
            Err(status) if status.code() != Code::InvalidArgument => return,
            _ => tokio::time::sleep(Duration::from_millis(random.u64(0..100))).await,
        }
    }
}
