//! What the API server says, one list or one event at a time: from bytes to objects.
//!
//! It does no IO and keeps nothing.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Resource,
    error::WatchError,
    objects::{Cluster, EndpointSlice, Lease, Metadata},
};

/// The annotations of nobody's objects are longer than this in total; a server that says more is not listened to.
pub(super) const LONGEST: usize = 8 << 20;
/// What the code of an ERROR event means that a version is not remembered any more.
const EXPIRED: u16 = 410;

/// One object.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Slice(EndpointSlice),
    Cluster(Cluster),
    Lease(Lease),
}

/// All objects that there are, at one version.
#[derive(Debug)]
pub(super) struct List {
    pub(super) version: String,
    pub(super) objects: Vec<Object>,
}

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// An object is there, new or changed.
    Applied(Box<Object>, String),
    /// The object of this name is gone.
    Deleted(String, String),
    /// Nothing more than this version.
    Bookmark(String),
    /// Something that is not known here.
    Other,
}

#[derive(Deserialize)]
struct RawList<T> {
    kind: String,
    metadata: Metadata,
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

#[derive(Deserialize)]
struct OnlyMetadata {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl List {
    /// Reads the answer to a list request.
    pub(super) fn parse(resource: Resource, bytes: &[u8]) -> Result<Self, WatchError> {
        match resource {
            Resource::EndpointSlices => Self::of(resource, bytes, Object::Slice),
            Resource::Clusters => Self::of(resource, bytes, Object::Cluster),
            Resource::Leases => Self::of(resource, bytes, Object::Lease),
        }
    }

    fn of<T: DeserializeOwned>(
        resource: Resource,
        bytes: &[u8],
        make: impl Fn(T) -> Object,
    ) -> Result<Self, WatchError> {
        let list: RawList<T> = serde_json::from_slice(bytes)?;
        // Anything that is JSON and has no items would otherwise mean that everything is gone.
        if list.kind != resource.list_kind() || list.metadata.resource_version.is_empty() {
            return Err(WatchError::NotAsked);
        }
        Ok(Self {
            version: list.metadata.resource_version,
            objects: list.items.into_iter().flatten().map(make).collect(),
        })
    }
}

impl Event {
    /// Reads one line of a watch. An ERROR event is an error.
    pub(super) fn parse(resource: Resource, line: &[u8]) -> Result<Self, WatchError> {
        let RawEvent { kind, object } = serde_json::from_slice(line)?;
        if kind == "ERROR" {
            let status = Status::deserialize(object).unwrap_or_default();
            return Err(match status.code {
                EXPIRED => WatchError::Expired,
                code => WatchError::Status(code),
            });
        }
        let metadata = OnlyMetadata::deserialize(&object)?.metadata;
        let version = metadata.resource_version;
        match kind.as_str() {
            "BOOKMARK" => Ok(Self::Bookmark(version)),
            // Nothing has no name.
            _ if metadata.name.is_empty() => Ok(Self::Other),
            "ADDED" | "MODIFIED" => {
                let object = Object::read(resource, object)?;
                Ok(Self::Applied(Box::new(object), version))
            }
            // What is in it is what was there last, and gone.
            "DELETED" => Ok(Self::Deleted(metadata.name, version)),
            _ => Ok(Self::Other),
        }
    }
}

impl Object {
    fn read(resource: Resource, value: Value) -> Result<Self, serde_json::Error> {
        Ok(match resource {
            Resource::EndpointSlices => Self::Slice(EndpointSlice::deserialize(value)?),
            Resource::Clusters => Self::Cluster(Cluster::deserialize(value)?),
            Resource::Leases => Self::Lease(Lease::deserialize(value)?),
        })
    }
}
