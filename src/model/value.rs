//! Field and metric values. In columns every value is 64 raw bits; the type stands beside the column.

/// The type of a field or metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Signed 64-bit integer.
    Int64,
    /// Unsigned 64-bit integer.
    Uint64,
    /// IEEE 754 double.
    Float64,
}

/// One typed value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Float(f64),
}

impl FieldType {
    /// The type's name in spec files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Float64 => "float64",
        }
    }

    /// Reads 64 raw bits of a column as a value of this type.
    pub fn value(self, bits: u64) -> Value {
        match self {
            Self::Int64 => Value::Int(bits as i64),
            Self::Uint64 => Value::Uint(bits),
            Self::Float64 => Value::Float(f64::from_bits(bits)),
        }
    }

    /// The raw bits of an `int64` from the wire as this type; `None` where the value does not fit.
    pub fn bits_of_int(self, value: i64) -> Option<u64> {
        match self {
            Self::Int64 => Some(value as u64),
            Self::Uint64 => u64::try_from(value).ok(),
            Self::Float64 => Some((value as f64).to_bits()),
        }
    }

    /// The raw bits of a `uint64` from the wire as this type; `None` where the value does not fit.
    pub fn bits_of_uint(self, value: u64) -> Option<u64> {
        match self {
            Self::Int64 => i64::try_from(value).ok().map(|v| v as u64),
            Self::Uint64 => Some(value),
            Self::Float64 => Some((value as f64).to_bits()),
        }
    }
}

impl Value {
    /// The value as a signed integer: clamped to its range, doubles rounded half away from zero, NaN as 0.
    pub fn to_int(self) -> i64 {
        match self {
            Self::Int(v) => v,
            Self::Uint(v) => i64::try_from(v).unwrap_or(i64::MAX),
            Self::Float(v) => v.round() as i64,
        }
    }

    /// The value as a double, the nearest one where it is not exact.
    pub fn to_float(self) -> f64 {
        match self {
            Self::Int(v) => v as f64,
            Self::Uint(v) => v as f64,
            Self::Float(v) => v,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(v) => v.fmt(f),
            Self::Uint(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
        }
    }
}
