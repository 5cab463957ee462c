#![allow(clippy::unwrap_used)]
use std::time::{Duration, Instant};
use seeway_client::stream::{Connection, IoTransport, Options};
#[tokio::test]
async fn giving_up() {
    for n in [128usize, 256, 512, 1024] {
        let (here, _there) = tokio::io::duplex(64);
        let c = Connection::open(IoTransport(here), "s", Options::default());
        let mut js = tokio::task::JoinSet::new();
        for _ in 0..n { let c = c.clone(); js.spawn(async move { let job = vec![1u8; 100_000]; c.submit(0, &job).await }); if js.len()==1 { tokio::time::sleep(Duration::from_millis(20)).await; } }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(c.in_flight(), n);
        let t = Instant::now();
        js.shutdown().await;
        println!("{n} jobs of 100 kB given up in {:?}", t.elapsed());
    }
}
