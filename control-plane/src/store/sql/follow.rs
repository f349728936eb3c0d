// SPDX-License-Identifier: Apache-2.0
//! Hears of other replicas' writes on PostgreSQL: LISTEN wakes at once, a poll finds what a lost notification would have
//! told (a server that restarted, a pooler in between that knows no LISTEN). Polled by `app.rs` through
//! [`super::SqlStore::follow`].

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgListener;
use sqlx::postgres::PgPoolOptions;

use super::Head;
use super::SqlStore;
use super::dialect::CHANNEL;
use super::within;

/// Between two looks without a notification: half of what a change may take to be everywhere.
const POLL: Duration = Duration::from_millis(500);

/// Never ends; what goes wrong is tried again.
pub(super) async fn follow(store: &SqlStore, server: PgConnectOptions) {
    let mut told = false;
    loop {
        let mut heard = false;
        if let Err(error) = listen(store, server.clone(), &mut heard).await {
            if heard || !told {
                tracing::warn!(store = store.dialect.location, %error, "cannot hear of other replicas' writes; trying again");
            }
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(200..800))).await;
    }
}

async fn listen(
    store: &SqlStore,
    server: PgConnectOptions,
    heard: &mut bool,
) -> Result<(), sqlx::Error> {
    // The listener wants a pool; one connection is all it takes from it.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(store.dialect.patience())
        .connect_with(server)
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let head = sqlx::query_as::<_, (i64, i64)>("SELECT revision, touched FROM pillion.head");
        let head = head.fetch_one(&mut listener);
        let (revision, touched) = within(&store.dialect, head).await?;
        if !*heard {
            tracing::info!(
                store = store.dialect.location,
                "hearing of other replicas' writes"
            );
            *heard = true;
        }
        store.moved(Head {
            revision: revision.cast_unsigned(),
            touched: touched.cast_unsigned(),
        });
        tokio::select! {
            notification = listener.recv() => { notification?; }
            () = tokio::time::sleep(POLL) => {}
        }
    }
}
