//! Looking around before booking. These functions only read.

use boki::prelude::*;
use serde::{Deserialize, Serialize};

use crate::availability;
use crate::catalogue::{Kind, OFFERS, Offer};

/// Where to?
#[derive(Debug, Serialize, Deserialize)]
pub struct Search {
    /// The city.
    pub city: String,
}

/// What is to be had in a city.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Flights there, cheapest first.
    pub flights: Vec<Choice>,
    /// Hotels there, cheapest first.
    pub hotels: Vec<Choice>,
}

/// A flight or hotel with places left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Its code.
    pub code: String,
    /// Of one seat, or of the stay.
    pub price: u32,
    /// Out of ten.
    pub rating: u8,
    /// Places that are free.
    pub free: usize,
    /// Places that are taken.
    pub taken: usize,
}

/// The flights to a city and its hotels, as far as anything is free.
#[boki::function]
pub async fn search(cx: &Cx, input: Search) -> Result<Found> {
    let mut found = Found { flights: Vec::new(), hotels: Vec::new() };
    for offer in OFFERS.iter().filter(|offer| offer.city == input.city) {
        let choice = look_at(cx, offer).await?;
        if choice.free > 0 {
            match offer.kind {
                Kind::Flight => found.flights.push(choice),
                Kind::Hotel => found.hotels.push(choice),
            }
        }
    }
    found.flights.sort_by_key(|choice| choice.price);
    found.hotels.sort_by_key(|choice| choice.price);
    Ok(found)
}

/// What matters most to the traveller.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The cheapest first.
    Price,
    /// The best first.
    Rating,
    /// Where most others are, first.
    Popularity,
}

/// Asks for advice.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recommend {
    /// The city.
    pub city: String,
    /// What matters most.
    pub by: By,
}

/// Up to three hotels of a city that have rooms.
#[boki::function]
pub async fn recommend(cx: &Cx, input: Recommend) -> Result<Vec<Choice>> {
    let mut choices = Vec::new();
    for offer in OFFERS.iter().filter(|offer| offer.kind == Kind::Hotel && offer.city == input.city) {
        choices.push(look_at(cx, offer).await?);
    }
    Ok(best(choices, &input.by))
}

/// The three best of those that have rooms.
fn best(mut choices: Vec<Choice>, by: &By) -> Vec<Choice> {
    choices.retain(|choice| choice.free > 0);
    match by {
        By::Price => choices.sort_by_key(|choice| choice.price),
        By::Rating => choices.sort_by_key(|choice| u8::MAX - choice.rating),
        By::Popularity => choices.sort_by_key(|choice| usize::MAX - choice.taken),
    }
    choices.truncate(3);
    choices
}

async fn look_at(cx: &Cx, offer: &Offer) -> Result<Choice> {
    let availability = availability::catch_up(cx.book(), offer).await?;
    let (free, taken) = (availability.count_free(offer), availability.count_taken());
    Ok(Choice { code: offer.code.to_owned(), price: offer.price, rating: offer.rating, free, taken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommendations_follow_what_matters_and_leave_out_what_is_full() {
        let choice = |code: &str, price, rating, free, taken| Choice { code: code.into(), price, rating, free, taken };
        let choices = vec![
            choice("a", 10, 5, 1, 9),
            choice("b", 30, 9, 5, 5),
            choice("c", 20, 7, 8, 2),
            choice("d", 1, 10, 0, 10),
        ];
        let codes = |by| best(choices.clone(), &by).into_iter().map(|choice| choice.code).collect::<String>();
        assert_eq!(codes(By::Price), "acb");
        assert_eq!(codes(By::Rating), "bca");
        assert_eq!(codes(By::Popularity), "abc");
    }
}
