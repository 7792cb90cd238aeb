//! What is served here, as tower services.

use http::Uri;

/// Makes a type that is cheap to clone a tower service, always ready and never failing. The bounds are those of a
/// request's body `B`; the last part makes the response, out of a clone and a request.
macro_rules! service {
    ($type:ty, [$($bounds:tt)+], $body:ty, |$this:ident, $request:ident| $response:expr) => {
        impl<B> tower::Service<http::Request<B>> for $type
        where
            $($bounds)+
        {
            type Response = http::Response<$body>;
            type Error = std::convert::Infallible;
            type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

            fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, $request: http::Request<B>) -> Self::Future {
                let $this = self.clone();
                Box::pin(async move { Ok($response) })
            }
        }
    };
}
pub(crate) use service;

/// The path that a request asks for, without a slash at its end.
pub(crate) fn path(uri: &Uri) -> &str {
    match uri.path() {
        "/" => "/",
        path => path.trim_end_matches('/'),
    }
}
