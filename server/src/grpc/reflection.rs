//! `grpc.reflection.v1.ServerReflection` and its elder brother `v1alpha`, which has the same messages: what the `.proto`
//! files of this node say, for tools that have none.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::LazyLock;

use anvil_proto::reflection::server_reflection_request::MessageRequest;
use anvil_proto::reflection::server_reflection_response::MessageResponse;
use anvil_proto::reflection::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse,
};
use anvil_proto::{DESCRIPTORS, DescriptorProto, FileDescriptorProto, FileDescriptorSet, Message as _};
use futures_util::future::{Either, select};

use super::call::{Call, Next, Wait, Wire};
use super::methods::methods;
use super::services::Services;
use super::status::{Code, Status};

methods! {
    "grpc.reflection.v1.ServerReflection":
    ServerReflectionInfo streams,
}

/// The method of a path, in either version.
#[must_use]
pub fn find(path: &str) -> Option<Method> {
    match path {
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Some(Method::ServerReflectionInfo),
        path => Method::find(path),
    }
}

impl Method {
    pub(super) async fn call<W: Wire>(self, services: &Services, call: &mut Call<'_, W>) -> Result<(), Status> {
        let Self::ServerReflectionInfo = self;
        loop {
            let asked = {
                let asked = pin!(call.next::<ServerReflectionRequest>(Wait::Idly));
                match select(asked, pin!(services.stopping())).await {
                    Either::Left((asked, _)) => asked?,
                    Either::Right((status, _)) => return Err(status),
                }
            };
            let Next::Message(request) = asked else { return Ok(()) };
            let response = FILES.answer(request.message_request.as_ref());
            let answer = ServerReflectionResponse {
                valid_host: request.host.clone(),
                original_request: Some(request),
                message_response: Some(response),
            };
            call.answer(&answer).await?;
        }
    }
}

/// The files, and in which of them each symbol is.
struct Files {
    by_name: BTreeMap<String, FileDescriptorProto>,
    by_symbol: BTreeMap<String, String>,
    services: Vec<String>,
}

static FILES: LazyLock<Files> =
    LazyLock::new(|| Files::of(FileDescriptorSet::decode(DESCRIPTORS).expect("the build wrote it")));

impl Files {
    fn of(set: FileDescriptorSet) -> Self {
        let mut files = Self { by_name: BTreeMap::new(), by_symbol: BTreeMap::new(), services: Vec::new() };
        for file in set.file {
            let (name, package) = (file.name().to_owned(), file.package().to_owned());
            let mut symbols = Vec::new();
            for service in &file.service {
                let service_name = format!("{package}.{}", service.name());
                symbols.extend(service.method.iter().map(|method| format!("{service_name}.{}", method.name())));
                symbols.push(service_name.clone());
                files.services.push(service_name);
            }
            symbols.extend(file.enum_type.iter().map(|of| format!("{package}.{}", of.name())));
            file.message_type.iter().for_each(|message| add_message(&mut symbols, &package, message));
            files.by_symbol.extend(symbols.into_iter().map(|symbol| (symbol, name.clone())));
            files.by_name.insert(name, file);
        }
        files.services.sort();
        files
    }

    fn answer(&self, question: Option<&MessageRequest>) -> MessageResponse {
        let not_found = |what: &str| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: Code::NotFound as i32,
                error_message: format!("this node has no {what}"),
            })
        };
        match question {
            Some(MessageRequest::ListServices(_)) => {
                let service = self.services.iter().map(|name| ServiceResponse { name: name.clone() }).collect();
                MessageResponse::ListServicesResponse(ListServiceResponse { service })
            }
            Some(MessageRequest::FileByFilename(name)) => self.file(name).unwrap_or_else(|| not_found("such file")),
            Some(MessageRequest::FileContainingSymbol(symbol)) => {
                let file = self.by_symbol.get(symbol).and_then(|name| self.file(name));
                file.unwrap_or_else(|| not_found("such symbol"))
            }
            Some(MessageRequest::FileContainingExtension(_) | MessageRequest::AllExtensionNumbersOfType(_)) => {
                not_found("extensions")
            }
            None => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: Code::InvalidArgument as i32,
                error_message: "the message asks nothing".to_owned(),
            }),
        }
    }

    /// A file with all that it imports, itself first.
    fn file(&self, name: &str) -> Option<MessageResponse> {
        let mut wanted = vec![self.by_name.get(name)?];
        let mut at = 0;
        while let Some(file) = wanted.get(at) {
            for import in file.dependency.iter().filter_map(|name| self.by_name.get(name)) {
                if !wanted.iter().any(|file| file.name == import.name) {
                    wanted.push(import);
                }
            }
            at += 1;
        }
        let file_descriptor_proto = wanted.into_iter().map(|file| file.encode_to_vec()).collect();
        Some(MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto }))
    }
}

fn add_message(symbols: &mut Vec<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    symbols.extend(message.enum_type.iter().map(|of| format!("{name}.{}", of.name())));
    message.nested_type.iter().for_each(|nested| add_message(symbols, &name, nested));
    symbols.push(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_is_served_in_both_versions() {
        for file in [
            include_str!("../../../proto/grpc/reflection/v1/reflection.proto"),
            include_str!("../../../proto/grpc/reflection/v1alpha/reflection.proto"),
        ] {
            assert_eq!(super::super::methods::declared(file), Method::NAMES);
        }
    }

    #[test]
    fn a_symbol_leads_to_its_file_and_what_that_imports() {
        let ask = |symbol: &str| FILES.answer(Some(&MessageRequest::FileContainingSymbol(symbol.to_owned())));
        for symbol in [
            "anvil.v1.ObjectService",
            "anvil.v1.ObjectService.GetObject",
            "anvil.v1.Chunk",
            "anvil.v1.ChecksumType",
            "anvil.v1.ObjectMetadata.UserEntry",
        ] {
            let MessageResponse::FileDescriptorResponse(files) = ask(symbol) else { panic!("{symbol} is there") };
            let names: Vec<String> = (files.file_descriptor_proto.iter())
                .map(|file| FileDescriptorProto::decode(&file[..]).unwrap().name().to_owned())
                .collect();
            assert_eq!(names[0], "anvil/v1/object.proto");
            for import in ["google/protobuf/timestamp.proto", "google/rpc/status.proto", "google/protobuf/any.proto"] {
                assert!(names.iter().any(|name| name == import), "{import} of {names:?}");
            }
        }
        assert!(matches!(ask("anvil.v1.Nothing"), MessageResponse::ErrorResponse(_)));
    }
}
