//! A program on tokio: `tokio-client ADDRESS:PORT COUNT` makes that many requests at the same time and prints the
//! bodies, one a line.

use std::{io::Write, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [destination, count] = &arguments[..] else { anyhow::bail!("tokio-client ADDRESS:PORT COUNT") };
    let (destination, count): (SocketAddr, u32) = (destination.parse()?, count.parse()?);
    let mut requests = JoinSet::new();
    for _ in 0..count {
        requests.spawn(async move {
            let mut stream = TcpStream::connect(destination).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            anyhow::Ok(text.lines().last().unwrap_or_default().to_owned())
        });
    }
    while let Some(body) = requests.join_next().await {
        writeln!(std::io::stdout(), "{}", body??)?;
    }
    Ok(())
}
