//! The YAML tree as a serde data format.

use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor, value};

use super::decode::DecodeError;
use super::place::AT;
use super::yaml::{Entry, Node, Yaml};

/// Gives a node to serde.
#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a>(pub(super) &'a Node);

impl<'a> NodeDeserializer<'a> {
    /// The words of a scalar, or the error that says what stands there instead.
    fn scalar(&self, expected: &dyn de::Expected) -> Result<&'a str, DecodeError> {
        self.0.text().ok_or_else(|| self.misplaced(expected))
    }

    /// The error that says what stands here instead of what is expected.
    fn misplaced(&self, expected: &dyn de::Expected) -> DecodeError {
        let scalar;
        let found = match &self.0.value {
            Yaml::Null => "nothing",
            Yaml::Scalar { text, .. } => {
                scalar = format!("`{text}`");
                &scalar
            }
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a mapping",
        };
        de::Error::invalid_type(Unexpected::Other(found), expected)
    }

    /// A scalar read as `T`, or the error that names what is expected.
    fn parsed<T: std::str::FromStr>(&self, expected: &dyn de::Expected) -> Result<T, DecodeError> {
        let text = self.scalar(expected)?;
        text.parse().map_err(|_| self.misplaced(expected))
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.parsed::<i128>(&visitor)? {
                // The visitor checks the range of the type it is for.
                number @ 0.. if number <= i128::from(u64::MAX) => visitor.visit_u64(number as u64),
                number if number >= i128::from(i64::MIN) && number < 0 => visitor.visit_i64(number as i64),
                _ => Err(self.misplaced(&visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = DecodeError;

    integers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    integers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Yaml::Null => visitor.visit_unit(),
            Yaml::List(_) => self.deserialize_seq(visitor),
            Yaml::Map(_) => self.deserialize_map(visitor),
            Yaml::Scalar { text, typed: true } => match (text.to_lowercase().as_str(), text.parse::<i64>()) {
                ("true", _) => visitor.visit_bool(true),
                ("false", _) => visitor.visit_bool(false),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => self.deserialize_f64(visitor),
            },
            Yaml::Scalar { text, typed: false } => visitor.visit_str(text),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.scalar(&visitor)? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(de::Error::unknown_variant(other, &["true", "false"])),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let number: f64 = self.parsed(&visitor)?;
        visitor.visit_f64(number)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let text = self.scalar(&visitor)?;
        visitor.visit_str(text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.value == Yaml::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == AT {
            visitor.visit_seq(PlaceAndValue { node: self.0, part: 0 })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Yaml::Null => visitor.visit_seq(Items { items: &[], next: 0 }),
            Yaml::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Yaml::Scalar { .. } => {
                let single = Items { items: std::slice::from_ref(self.0), next: 0 };
                // The one item has no index of its own in the tree.
                visitor.visit_seq(single).map_err(DecodeError::of_the_whole)
            }
            Yaml::Map(_) => Err(self.misplaced(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Yaml::Null => visitor.visit_map(Entries { entries: &[], next: 0 }),
            Yaml::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
            _ => Err(self.misplaced(&"a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        for (index, entry) in self.0.entries().iter().enumerate() {
            let name = entry.key.text().unwrap_or_default();
            if !fields.contains(&name) {
                let unknown: DecodeError = de::Error::unknown_field(name, fields);
                return Err(unknown.inside(index, entry.key.place));
            }
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Yaml::Scalar { text, .. } => visitor.visit_enum(text.as_str().into_deserializer()),
            Yaml::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(value::MapAccessDeserializer::new(Entries { entries, next: 0 }))
            }
            _ => Err(self.misplaced(&variants.join(", ").as_str())),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }
}

/// The items of a list.
struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        self.next += 1;
        let value = seed.deserialize(NodeDeserializer(item));
        value.map(Some).map_err(|error| error.inside(self.next - 1, item.place))
    }
}

/// The entries of a mapping.
struct Entries<'a> {
    entries: &'a [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        let key = seed.deserialize(NodeDeserializer(&entry.key));
        key.map(Some).map_err(|error| error.inside(self.next, entry.key.place))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.entries.get(self.next) else { return Err(de::Error::custom("a key without a value")) };
        self.next += 1;
        let value = seed.deserialize(NodeDeserializer(&entry.value));
        value.map_err(|error| error.inside(self.next - 1, entry.value.place))
    }
}

/// What [`At`] asks for: the three numbers of the place, then the value.
struct PlaceAndValue<'a> {
    node: &'a Node,
    part: u8,
}

impl<'de> SeqAccess<'de> for PlaceAndValue<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let place = self.node.place;
        self.part += 1;
        match self.part {
            1 => seed.deserialize(place.source.into_deserializer()),
            2 => seed.deserialize(place.line.into_deserializer()),
            3 => seed.deserialize(place.column.into_deserializer()),
            _ => seed.deserialize(NodeDeserializer(self.node)),
        }
        .map(Some)
    }
}
