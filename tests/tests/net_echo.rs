//! TCP echo on one loop: bytes, ends and descriptors.

use coreloop_net::{TcpListener, TcpStream};

#[test]
fn net_echo_gives_back_every_byte_in_order() {
    coreloop::run(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = coreloop::spawn(async move {
            let mut stream = listener.accept().await.unwrap();
            let mut echoed = 0;
            while let Some(chunk) = stream.recv().await.unwrap() {
                let (n, _) = stream.write_all(chunk).await.unwrap();
                echoed += n;
            }
            echoed
        });
        let mut client = TcpStream::connect(addr).await.unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let (mut read, mut write) = client_halves(&mut client).await;
        let expected = sent.clone();
        let sender = coreloop::spawn(async move {
            write.write_all(sent).await.unwrap();
            write.shutdown().unwrap();
        });
        let mut got = Vec::new();
        while let Some(chunk) = read.recv().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        sender.await.unwrap();
        assert_eq!(got.len(), expected.len());
        assert!(got == expected);
        assert_eq!(server.await.unwrap(), expected.len());
    })
    .unwrap();
}

async fn client_halves(
    client: &mut TcpStream,
) -> (coreloop_net::ReadHalf, coreloop_net::WriteHalf) {
    let addr = client.peer_addr().unwrap();
    let old = std::mem::replace(client, TcpStream::connect(addr).await.unwrap());
    old.split()
}
