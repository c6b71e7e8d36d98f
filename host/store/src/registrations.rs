//! Who may use the service.

use domain::{ClientId, RegistrationId, Timestamp};
use engine::{Registered, Registration};
use rusqlite::{Connection, OptionalExtension};

use crate::failure::Failure;

/// Registers a client, unless it is registered. Each registration has an id that was never used.
pub(crate) fn register(
    db: &Connection,
    client: &ClientId,
    key_hash: &str,
    now: Timestamp,
) -> Result<Registered, Failure> {
    let added = db
        .prepare_cached(
            "INSERT INTO registrations (client, key_hash, registered_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (client) DO NOTHING",
        )?
        .execute((client.as_str(), key_hash, now.as_millis()))?;
    Ok(match added {
        0 => Registered::AlreadyKnown,
        _ => Registered::New(RegistrationId(db.last_insert_rowid())),
    })
}

/// The current registration of a client.
pub(crate) fn find(db: &Connection, client: &ClientId) -> Result<Option<Registration>, Failure> {
    let found = db
        .prepare_cached("SELECT id, key_hash FROM registrations WHERE client = ?1")?
        .query_row([client.as_str()], |row| {
            Ok(Registration {
                id: RegistrationId(row.get(0)?),
                key_hash: row.get(1)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// Ends the registration of a client; false when there is none.
pub(crate) fn unregister(db: &Connection, client: &ClientId) -> Result<bool, Failure> {
    let removed = db
        .prepare_cached("DELETE FROM registrations WHERE client = ?1")?
        .execute([client.as_str()])?;
    Ok(removed > 0)
}
