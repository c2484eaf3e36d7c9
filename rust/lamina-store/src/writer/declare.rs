//! Names of sites and columns to numbers: declared by first use, through a numbered commit, checked after.

use super::SiteInput;
use super::column::ColumnInput;
use crate::chain;
use crate::storage::Storage;
use lamina_format::record::{Column, Op, Site, Table};
use lamina_format::segment::Declared;
use lamina_format::{Error, Result, names};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The declarations as this writer knows them.
pub struct Names {
    writer: u32,
    declared: Arc<Mutex<Arc<Declared>>>,
    /// Numbers of the sites that are declared: an append of hundreds looks up as many. Locked behind `declared`.
    sites: Mutex<SiteNumbers>,
}

type SiteNumbers = HashMap<String, u32>;

/// Numbers of the sites and columns of one call, in its order.
pub struct Ids {
    pub sites: Vec<u32>,
    pub columns: Vec<u32>,
}

impl Names {
    pub fn read(storage: &dyn Storage, writer: u32) -> Result<Self> {
        let declared = chain::publish(storage, Some(writer), |_, _| Ok(Vec::new()))?;
        let sites = Mutex::new(numbers_of(&declared));
        Ok(Self { writer, declared: Arc::new(Mutex::new(Arc::new(declared))), sites })
    }

    /// The declarations, shared with the committer's thread: another snapshot after each that is new.
    pub fn declared(&self) -> Arc<Mutex<Arc<Declared>>> {
        Arc::clone(&self.declared)
    }

    /// The numbers of these names; what is new is declared, what contradicts a declaration is an error.
    pub fn resolve(
        &self,
        storage: &dyn Storage,
        table: Table,
        sites: &[SiteInput],
        columns: &[ColumnInput],
    ) -> Result<Ids> {
        let mut seen = HashSet::new();
        let all = sites.iter().map(|site| site.name).chain(columns.iter().map(|column| column.name));
        if let Some(twice) = all.into_iter().find(|name| !seen.insert(*name)) {
            return Err(Error::schema(format!("{twice:?} is given twice")));
        }
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if !missing(&declared, &numbers, 0, table, sites, columns)?.is_empty() {
            let new = chain::publish(storage, Some(self.writer), |declared, lost| {
                missing(declared, &numbers_of(declared), lost, table, sites, columns)
            })?;
            *numbers = numbers_of(&new);
            *declared = Arc::new(new);
        }
        let lost = || Error::damaged("a declaration that was just published is not there");
        let site = |input: &SiteInput| numbers.get(input.name).copied().ok_or_else(lost);
        let column = |input: &ColumnInput| find_column(&declared, table, input.name).map(|c| c.id).ok_or_else(lost);
        Ok(Ids {
            sites: sites.iter().map(site).collect::<Result<_>>()?,
            columns: columns.iter().map(column).collect::<Result<_>>()?,
        })
    }
}

/// The numbers of the sites by their names.
fn numbers_of(declared: &Declared) -> SiteNumbers {
    let mut numbers = SiteNumbers::new();
    for (&id, site) in &declared.sites {
        // the first of its name, if a run has two
        numbers.entry(site.name.clone()).or_insert(id);
    }
    numbers
}

fn find_column<'a>(declared: &'a Declared, table: Table, name: &str) -> Option<&'a Column> {
    declared.columns.values().find(|column| column.table == table && column.name == name)
}

/// Declarations that are not there yet.
fn missing(
    declared: &Declared,
    numbers: &SiteNumbers,
    lost: u32,
    table: Table,
    sites: &[SiteInput],
    columns: &[ColumnInput],
) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    let mut site_ids = first_free(declared.sites.keys().last(), lost)?..;
    for input in sites {
        let Some(site) = numbers.get(input.name).and_then(|id| declared.sites.get(id)) else {
            names::check_site(input.name)?;
            check_clash("site", input.name, "column", find_column(declared, table, input.name).is_some())?;
            let declared = input.declared(0);
            if !input.dtype.is_for_rows() || declared.is_sparse() && !input.dtype.is_for_codes() {
                let text = format!("site {:?} cannot be {}", input.name, input.dtype.name());
                return Err(Error::schema(text).hint("convert it; complex numbers as two sites or as pairs"));
            }
            let Some(id) = site_ids.next() else { continue };
            ops.push(Op::Site(Site { id, ..declared }));
            continue;
        };
        if (site.dtype, &site.shape, site.is_sparse()) != (input.dtype, &input.shape, input.codes.is_some()) {
            let (name, held, given) = (&site.name, site.described(), input.declared(0).described());
            let text = format!("site {name:?} holds {held}, now given {given}");
            return Err(Error::schema(text).hint("a site keeps its dtype and item shape; record it under another name"));
        }
    }
    let mut column_ids = first_free(declared.columns.keys().last(), lost)?..;
    for input in columns {
        let Some(column) = find_column(declared, table, input.name) else {
            names::check_column(input.name)?;
            check_clash("column", input.name, "site", table == Table::Rows && numbers.contains_key(input.name))?;
            let Some(id) = column_ids.next() else { continue };
            ops.push(Op::Column(Column { id, name: input.name.to_owned(), kind: input.kind, table }));
            continue;
        };
        if column.kind != input.kind {
            let text =
                format!("column {:?} holds {}, now given {}", column.name, column.kind.name(), input.kind.name());
            return Err(Error::schema(text).hint("a column keeps its type; convert the values or use another name"));
        }
    }
    Ok(ops)
}

fn first_free(last: Option<&u32>, lost: u32) -> Result<u32> {
    let free = last.map_or(Some(0), |last| last.checked_add(1)).and_then(|free| free.checked_add(lost));
    free.ok_or_else(|| Error::schema("the run has no number left for another site or column"))
}

fn check_clash(what: &str, name: &str, other: &str, taken: bool) -> Result<()> {
    match taken {
        false => Ok(()),
        true => Err(Error::schema(format!("the {what} name {name:?} is already that of a {other}"))),
    }
}
