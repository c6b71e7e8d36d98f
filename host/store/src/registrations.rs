//! Who may use the service.

use domain::{ClientId, RegistrationId, Timestamp};
use engine::{Registered, RegisteredClient, Registration};
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

/// How many clients are registered.
pub(crate) fn count(db: &Connection) -> Result<u64, Failure> {
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM registrations")?
        .query_row([], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Registered clients, newest first.
pub(crate) fn page(
    db: &Connection,
    before: Option<RegistrationId>,
    limit: u32,
) -> Result<Vec<RegisteredClient>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT id, client, registered_at FROM registrations WHERE id < ?1
         ORDER BY id DESC LIMIT ?2",
    )?;
    let before = before.map_or(i64::MAX, |before| before.0);
    let mut rows = statement.query((before, limit))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        // The empty name is refused where names come in.
        let Some(client) = ClientId::new(row.get::<_, String>(1)?) else {
            continue;
        };
        page.push(RegisteredClient {
            id: RegistrationId(row.get(0)?),
            client,
            registered_at: Timestamp::from_millis(row.get(2)?),
        });
    }
    Ok(page)
}
