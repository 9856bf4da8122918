//! The number of aggregators changes while a process lives.

use std::sync::Arc;
use std::time::Duration;

use barline::runtime::Scaling;

/// Asks for another number again and again, until the stage has ended; what is refused because another change is under way
/// is asked for again later.
pub async fn change(scaling: Arc<Scaling>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        tokio::time::sleep(Duration::from_micros(random.u64(0..700_000))).await;
        let asked = scaling.ask(random.u16(scaling.plan.min..=scaling.plan.max));
        if let (Ok(number), true) = (asked, random.bool())
            && scaling.done(number).await.is_err()
        {
            return;
        }
    }
}
