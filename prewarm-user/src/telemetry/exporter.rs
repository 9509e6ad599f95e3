//! The endpoint that Prometheus scrapes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

/// A scraper that says nothing for this long is disconnected.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Scrapers served at once; more wait.
const CONNECTIONS: usize = 8;
/// Where the page is.
const PATH: &str = "/metrics";

/// Serves `page` at `/metrics` until the task is dropped. Anything else is 404; nothing can be changed through it.
pub async fn serve<F, P>(listener: TcpListener, page: F)
where
    F: Fn() -> P + Send + Sync + 'static,
    P: Future<Output = String> + Send,
{
    let page = Arc::new(page);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                tracing::warn!(%error, "metrics: could not accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let page = Arc::clone(&page);
                async move {
                    let is_page = request.method() == Method::GET && request.uri().path() == PATH;
                    let body = if is_page { page().await } else { String::new() };
                    Ok::<_, Infallible>(answer(&request, body))
                }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "metrics: a scrape failed");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, page: String) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, PATH) => (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", page),
        (_, PATH) => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "the metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, || async { "prewarm_x_total 1\n# EOF\n".to_owned() }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        server.abort();
        reply
    }

    #[tokio::test]
    async fn the_page_is_served_and_nothing_else() {
        let page = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("prewarm_x_total 1"), "{page}");
        assert!(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        assert!(ask("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    }
}
