//! What the API's description says beyond the handlers: bytes, and what every error looks like.

use serde::Serialize;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

/// Bytes as they are.
pub(crate) struct RawBytes;

impl PartialSchema for RawBytes {
    fn schema() -> RefOr<utoipa::openapi::Schema> {
        let bytes = utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .content_media_type("application/octet-stream");
        RefOr::T(bytes.into())
    }
}

impl ToSchema for RawBytes {}

/// A request that was not served, and why (RFC 9457). There are further fields, depending on the code.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemJson {
    /// Where the code is explained: `/errors/BK0201`.
    r#type: String,
    /// What the code stands for.
    title: String,
    status: u16,
    /// What happened, to which thing.
    detail: String,
    /// Never changes its meaning.
    code: String,
    /// What to do next.
    next: String,
    /// `never`, `later` (nothing was done) or `with_same_id` (it may have been done).
    retry: String,
}

/// Says of every operation that it may be answered with a problem.
pub(crate) fn add_problems(description: &mut OpenApi) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemJson"))).build();
    let response = ResponseBuilder::new().description("A problem").content("application/problem+json", problem).build();
    for item in description.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), RefOr::T(response.clone()));
        }
    }
}
