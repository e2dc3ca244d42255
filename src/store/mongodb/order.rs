//! The first records in the order of one field, which is defined on wire JSON ([`crate::query`]), out of a server that orders
//! BSON.
//!
//! Where the two agree, and an index has them in this order, the server sorts: the records are asked for class by class and type
//! by type, in the order that their JSON has, until there are as many as the reader takes. Types that show as strings are
//! asked for one after the other, each from where it begins: which of them come first is left to the reader. What the server
//! orders in another way than as it is shown (decimals, binary data, …) is **odd**, and all of it is read when its class is
//! reached. No index tells decimals from other numbers, so where a page comes to the strings all numbers are looked at.
//!
//! An index of `{field: 1, _id: 1}` serves an ascending list, one of `{field: -1, _id: 1}` a descending one: a page then costs
//! what it has. Without one, and as soon as one record has an array there, which the index remembers, every record is read
//! instead: for the server to sort them would be slower, since it reads them for each type anew.
//!
//! Records that are alike come in the order of their `_id`, as the server has it: see [`ids`].
//!
//! Strings that are not UTF-8, which no driver writes, come where their bytes put them.

use mongodb::bson::{Bson, Document as Tree, doc};
use mongodb::error::ErrorKind;

use super::ahead::{BATCH_BYTES, BATCH_RECORDS, Batches, Room, bytes_of};
use super::bson::from_key;
use super::cursor::Cursor;
use super::ids;
use super::lists::{by_bytes, only};
use super::{MongoDb, error, filter};
use crate::query::sort::{PREFIX, Value};
use crate::record::{Key, Record};
use crate::store::{Error, Order, Query, Result};
use crate::wire;

/// How many records of one kind are asked for at a time, at most: of those that the server sorts it keeps as many in memory.
const MOST: usize = 10 * BATCH_RECORDS as usize;

/// Records that the server sorts as their JSON is sorted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Null,
    Numbers,
    Strings,
    Dates,
    ObjectIds,
    Objects,
    Booleans(bool),
}

/// The places that a type can have, ascending.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    Null,
    Numbers,
    Strings,
    Objects,
    /// An index that has some serves no order, so there are none to ask for.
    Arrays,
    False,
    True,
}

impl Class {
    const ALL: [Self; 7] =
        [Self::Null, Self::Numbers, Self::Strings, Self::Objects, Self::Arrays, Self::False, Self::True];

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Number(_) => Self::Numbers,
            Value::String(_) => Self::Strings,
            Value::Object => Self::Objects,
            Value::Array => Self::Arrays,
            Value::Bool(false) => Self::False,
            Value::Bool(true) => Self::True,
        }
    }

    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Null => &[Kind::Null],
            Self::Numbers => &[Kind::Numbers],
            Self::Strings => &[Kind::Strings, Kind::Dates, Kind::ObjectIds],
            Self::Objects => &[Kind::Objects],
            Self::Arrays => &[],
            Self::False => &[Kind::Booleans(false)],
            Self::True => &[Kind::Booleans(true)],
        }
    }

    /// What of this class is of no kind.
    fn odd(self, field: &str) -> Vec<Tree> {
        let types = |names: &[&str]| {
            let names: Vec<Bson> = names.iter().map(|name| (*name).into()).collect();
            doc! { field: { "$type": names } }
        };
        match self {
            Self::Null => {
                // Decimals are equal to these too, and have another place.
                let not_finite = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Bson::Double).to_vec();
                vec![types(&["undefined"]), doc! { field: { "$in": not_finite, "$type": "double" } }]
            }
            // A symbol is a string to both.
            Self::Strings => vec![
                types(&["decimal", "binData", "regex", "javascript", "minKey", "maxKey"]),
                doc! { field: { "$lt": filter::date(filter::YEAR_0) } },
                doc! { field: { "$gt": filter::date(filter::YEAR_9999) } },
            ],
            Self::Objects => vec![types(&["timestamp", "javascriptWithScope", "dbPointer"])],
            Self::Numbers | Self::Arrays | Self::False | Self::True => Vec::new(),
        }
    }
}

/// Where to go on.
#[derive(Clone)]
struct Place {
    value: Value,
    key: Key,
    /// Whether a string is all of it, as it was read; a cursor carries the beginning of long ones.
    whole: bool,
}

/// A sorted list in MongoDB's words.
pub struct Sorted<'a> {
    query: &'a Query,
    order: &'a Order,
    /// The field, as MongoDB writes paths.
    field: String,
    /// What MongoDB does not go into, and the path does.
    scalars: Vec<Tree>,
}

impl<'a> Sorted<'a> {
    /// `None` when the query has no order of its own, or begins behind a key and so is of the order of keys, or MongoDB has no
    /// name for the field that means it alone: a name of digits is a place in an array too, of which an index on it does not
    /// tell (it is not [multikey](https://www.mongodb.com/docs/manual/core/indexes/index-types/index-multikey/) by it).
    pub fn of(query: &'a Query) -> Option<Self> {
        let order = query.order.as_ref().filter(|_| query.after.is_none())?;
        let path = &order.sort.path;
        let is_place = |name: &&str| name.bytes().all(|byte| byte.is_ascii_digit());
        if path.names().iter().skip(1).any(|name| is_place(&&**name)) {
            return None;
        }
        let field = filter::dotted(path)?;
        Some(Self { query, order, field, scalars: filter::inside_of_scalars(path) })
    }

    fn descending(&self) -> bool {
        self.order.sort.descending
    }

    fn and(&self, clauses: impl IntoIterator<Item = Tree>) -> Tree {
        let all: Vec<Tree> = filter::clauses(&self.query.filters).chain(clauses).collect();
        doc! { "$and": all }
    }

    /// The records of one kind from behind `place` on; those before it may be among them.
    fn of_kind(&self, kind: Kind, place: Option<&Place>) -> Tree {
        let odd = Class::ALL.into_iter().flat_map(|class| class.odd(&self.field)).chain(self.scalars.iter().cloned());
        self.and([self.range(kind, place), doc! { "$nor": odd.collect::<Vec<_>>() }])
    }

    fn range(&self, kind: Kind, place: Option<&Place>) -> Tree {
        let field = &self.field;
        let (first, last): (Bson, Bson) = match kind {
            Kind::Numbers => (f64::NEG_INFINITY.into(), f64::INFINITY.into()),
            Kind::Dates => (filter::date(filter::YEAR_0), filter::date(filter::YEAR_9999)),
            Kind::Strings => ("".into(), Bson::Null),
            Kind::ObjectIds => (mongodb::bson::oid::ObjectId::from_bytes([0; 12]).into(), Bson::Null),
            Kind::Null | Kind::Objects | Kind::Booleans(_) => {
                // They are all alike, so the `_id` decides.
                let those = match kind {
                    Kind::Null => doc! { field: Bson::Null },
                    Kind::Booleans(value) => doc! { field: value },
                    _ => doc! { field: { "$type": "object" } },
                };
                return match place {
                    Some(place) => doc! { "$and": [those, filter::behind(&place.key)] },
                    None => those,
                };
            }
        };
        // Bounds compare within their own type, but for numbers and dates, of which some are odd.
        let mut whole = doc! { "$gte": first };
        if last != Bson::Null {
            whole.insert("$lte", last);
        }
        let Some(place) = place else { return doc! { field: whole } };
        match (&place.value, self.exactly(kind, place)) {
            (_, Some(value)) => {
                let beyond = if self.descending() { "$lt" } else { "$gt" };
                let alike = doc! { "$and": [{ field: { "$eq": value.clone() } }, filter::behind(&place.key)] };
                let mut others = whole;
                others.insert(beyond, value);
                doc! { "$or": [alike, { field: others }] }
            }
            (Value::String(text), None) => self.from(kind, text).unwrap_or(doc! { field: whole }),
            (_, None) => doc! { field: whole },
        }
    }

    /// The value of this kind that `place` has, if there is one and it is known to its end.
    fn exactly(&self, kind: Kind, place: &Place) -> Option<Bson> {
        match (kind, &place.value) {
            (Kind::Numbers, Value::Number(number)) => Some(from_key(number)),
            (Kind::Strings, Value::String(text)) => (place.whole || !may_be_cut(text)).then(|| text.as_str().into()),
            (Kind::Dates, Value::String(text)) => {
                // Other years have a sign, which has its place before the digits.
                let plain =
                    wire::parse_date(text).filter(|millis| (filter::YEAR_0..=filter::YEAR_9999).contains(millis));
                plain.map(filter::date)
            }
            (Kind::ObjectIds, Value::String(text)) => {
                wire::parse_object_id(text).map(|id| mongodb::bson::oid::ObjectId::from_bytes(id).into())
            }
            _ => None,
        }
    }

    /// What shows as `text` or is behind it, and maybe some before it.
    fn from(&self, kind: Kind, text: &str) -> Option<Tree> {
        let up = !self.descending();
        let range = match kind {
            Kind::Dates => filter::dates(text, up).next()?,
            Kind::ObjectIds => doc! { if up { "$gte" } else { "$lte" }: filter::object_id(text, up) },
            // What begins with the text comes behind it in either direction, and has no end that could be named.
            Kind::Strings if up => doc! { "$gte": text },
            _ => return None,
        };
        Some(doc! { &self.field: range })
    }

    fn sort(&self, kind: Kind) -> Tree {
        let direction = if self.descending() { -1 } else { 1 };
        match kind {
            Kind::Null | Kind::Objects | Kind::Booleans(_) => doc! { "_id": 1 },
            _ if self.field == "_id" => doc! { "_id": direction },
            _ => doc! { &self.field: direction, "_id": 1 },
        }
    }

    /// The classes to ask for in turn, the first one from `after` on.
    fn classes(&self) -> Vec<(Class, Option<Place>)> {
        let after = self.order.after.clone().map(|(value, key)| Place { value, key, whole: false });
        let begins = after.as_ref().map(|after| Class::of(&after.value));
        let mut classes = Class::ALL;
        if self.descending() {
            classes.reverse();
        }
        let left = classes.into_iter().skip_while(|class| begins.is_some_and(|begins| begins != *class));
        left.map(|class| (class, after.clone().filter(|_| begins == Some(class)))).collect()
    }

    /// Whether a record counts for the reader.
    fn wants(&self, record: &Record, value: &Value) -> bool {
        let is_behind =
            |(after, key): &(Value, Key)| self.order.sort.compare((value, record.key()), (after, key)).is_gt();
        self.order.after.as_ref().is_none_or(is_behind) && self.query.filters.hold(record.json())
    }
}

/// Whether a string is so long that a cursor may have no more of it, and that others may count as alike.
fn may_be_cut(text: &str) -> bool {
    text.len() >= PREFIX
}

/// Whether a plan has an index put the records in order by `field`, and the index knows of no array there.
fn is_served(plan: &Bson, field: &str) -> bool {
    let mut indexes = Vec::new();
    let works = works(plan, &mut indexes);
    let of_all = |index: &&Tree| {
        index.get_document("keyPattern").is_ok_and(|keys| keys.contains_key(field))
            && index.get_bool("isMultiKey").is_ok_and(|multikey| !multikey)
            && !index.get_bool("isPartial").unwrap_or(false)
    };
    !works && !indexes.is_empty() && indexes.iter().all(of_all)
}

/// Whether the plan reads a collection or sorts. If it does not, `indexes` are all the parts that read one.
fn works<'a>(plan: &'a Bson, indexes: &mut Vec<&'a Tree>) -> bool {
    match plan {
        Bson::Document(stage) => {
            if stage.contains_key("keyPattern") {
                indexes.push(stage);
            }
            let does = stage.get_str("stage").is_ok_and(|stage| stage == "COLLSCAN" || stage == "SORT");
            does || stage.values().any(|value| works(value, indexes))
        }
        Bson::Array(values) => values.iter().any(|value| works(value, indexes)),
        _ => false,
    }
}

impl MongoDb {
    /// Sends the records that come first, in any order.
    pub async fn read_in_order(&self, sorted: &Sorted<'_>, batches: &Batches) -> Result<()> {
        let mut left = sorted.order.limit;
        // They may be of any class.
        self.read_odd(sorted, sorted.scalars.clone(), batches).await?;
        for (class, place) in sorted.classes() {
            let mut found = self.read_odd(sorted, class.odd(&sorted.field), batches).await?;
            for kind in class.kinds() {
                found += self.read_kind(sorted, *kind, place.clone(), left, batches).await?;
            }
            left = left.saturating_sub(found);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Sends all that the reader may want of these, and returns how many that are.
    async fn read_odd(&self, sorted: &Sorted<'_>, odd: Vec<Tree>, batches: &Batches) -> Result<usize> {
        if odd.is_empty() {
            return Ok(0);
        }
        let find = Find { filter: sorted.and([doc! { "$or": odd }]), first: None };
        let (mut cursor, mut sent) = (None, 0);
        while let Some((mut found, room)) = self.next_of(sorted, &find, &mut cursor, batches).await? {
            found.retain(|record| sorted.wants(record, &sorted.order.sort.value(record.json())));
            sent += found.len();
            batches.send(found, room).await?;
        }
        Ok(sent)
    }

    /// Sends the first `enough` records of this kind, if there are as many, and returns how many were sent.
    async fn read_kind(
        &self,
        sorted: &Sorted<'_>,
        kind: Kind,
        mut place: Option<Place>,
        enough: usize,
        batches: &Batches,
    ) -> Result<usize> {
        // Some may be left out by the filters, and should not cost a round trip each; nor should a plan be made for each batch
        // where nearly all are.
        let mut few = if sorted.query.filters.is_empty() { enough } else { enough.max(100) };
        let (mut sent, mut last) = (0, Value::Null);
        loop {
            let find = Find { filter: sorted.of_kind(kind, place.as_ref()), first: Some((sorted.sort(kind), few)) };
            let (mut cursor, mut read) = (None, 0);
            while let Some((found, room)) = self.next_of(sorted, &find, &mut cursor, batches).await? {
                read += found.len();
                let mut wanted = Vec::new();
                let mut done = false;
                for record in found {
                    let whole = sorted.order.sort.whole(record.json());
                    let value = whole.cut();
                    place = Some(Place { value: whole, key: record.key().clone(), whole: true });
                    if !sorted.wants(&record, &value) {
                        continue;
                    }
                    // What counts as alike may follow, and have a smaller `_id`.
                    done = sent >= enough && value != last;
                    if done {
                        break;
                    }
                    sent += 1;
                    last = value;
                    wanted.push(record);
                }
                batches.send(wanted, room).await?;
                let more_alike = matches!(&last, Value::String(text) if may_be_cut(text));
                if done || (sent >= enough && !more_alike) {
                    return Ok(sent);
                }
            }
            if read < few {
                return Ok(sent);
            }
            few = few.max((few * 8).min(MOST));
        }
    }

    async fn next_of(
        &self,
        sorted: &Sorted<'_>,
        find: &Find,
        cursor: &mut Option<Cursor>,
        batches: &Batches,
    ) -> Result<Option<(Vec<Record>, Room)>> {
        let room = batches.ready(BATCH_BYTES).await?;
        let batch = self.held.batch(sorted.query, &room);
        let found = self.next(cursor, self.sorted(sorted, find, batch), batches).await?;
        if let Some(found) = &found {
            self.held.learn(sorted.query, found.len(), bytes_of(found));
        }
        Ok(found.map(|found| (found, room)))
    }

    async fn sorted(&self, sorted: &Sorted<'_>, find: &Find, batch: u32) -> mongodb::error::Result<Cursor> {
        let collection = self.inner.collection().await?;
        let found = collection.find(find.filter.clone()).collation(by_bytes()).max_time(self.inner.options.timeout);
        let found = only(found, filter::fields(sorted.query)).batch_size(batch);
        let found = match &find.first {
            // With a limit the server keeps no more than that many while it sorts.
            Some((order, limit)) => found.sort(order.clone()).limit(*limit as i64),
            None => found,
        };
        found.batch().await.map(|batches| Cursor::of(&collection, batches))
    }

    /// Whether an index serves the order, and the server's order of ids is that of their keys.
    ///
    /// # Errors
    ///
    /// That there is no server now, or nobody who reads the list.
    pub async fn is_in_order(&self, sorted: &Sorted<'_>, batches: &Batches) -> Result<bool> {
        if sorted.order.after.as_ref().is_some_and(|(_, key)| ids::is_opaque(key)) {
            return Ok(false);
        }
        Ok(self.is_served(sorted, batches).await? && !self.has_opaque_ids(batches).await?)
    }

    /// Whether an index serves the order. A server that does not say has none.
    ///
    /// # Errors
    ///
    /// That there is no server now, or nobody who reads the list.
    async fn is_served(&self, sorted: &Sorted<'_>, batches: &Batches) -> Result<bool> {
        let _permit = self.turn(batches).await?;
        let plan = async {
            let collection = self.inner.collection().await?;
            let find = doc! {
                "find": collection.name(),
                "filter": sorted.of_kind(Kind::Strings, None),
                "sort": sorted.sort(Kind::Strings),
                "collation": mongodb::bson::serialize_to_document(&by_bytes())?,
            };
            let within = i64::try_from(self.inner.options.timeout.as_millis()).unwrap_or(i64::MAX);
            let explain = doc! { "explain": find, "verbosity": "queryPlanner", "maxTimeMS": within };
            let database = self.inner.client().await?.database(&self.inner.database);
            let run = database.run_command(explain);
            match collection.selection_criteria() {
                Some(criteria) => run.selection_criteria(criteria.clone()).await,
                None => run.await,
            }
        };
        match plan.await {
            Ok(plan) => {
                let plan = plan.get_document("queryPlanner").ok().and_then(|planner| planner.get("winningPlan"));
                Ok(plan.is_some_and(|plan| is_served(plan, &sorted.field)))
            }
            // It may not explain, or have no plan for this, or not in these words; the list itself can do without.
            Err(error) if matches!(*error.kind, ErrorKind::Command(_)) => Ok(false),
            Err(error) => Some(error::sorted(error)).filter(Error::is_unavailable).map_or(Ok(false), Err),
        }
    }
}

struct Find {
    filter: Tree,
    /// In this order no more than so many.
    first: Option<(Tree, usize)>,
}
