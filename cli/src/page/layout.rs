//! Where the graph of steps is drawn: stages as cards in columns, each right of those it uses, steps as rows in their card. Pure
//! geometry in CSS pixels; knows no HTML.

use std::collections::{BTreeMap, HashMap};

use solver::report::StepReport;

/// More steps than this are drawn as dots: rows would make the page endless.
const ROWS_UP_TO: usize = 60;
/// Room between columns, which edges run through.
const COLUMN_GAP: u32 = 56;
/// Room between cards of a column.
const CARD_GAP: u32 = 14;
/// A column that grows higher than this goes on beside itself.
const COLUMN_HEIGHT: u32 = 560;
/// Room around everything.
const MARGIN: u32 = 12;

/// How the steps of a card are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A row with the instruction.
    Rows,
    /// A dot.
    Dots,
}

impl Style {
    const DOT: u32 = 18;
    const DOTS_IN_A_ROW: usize = 8;

    fn of(steps: usize) -> Self {
        if steps > ROWS_UP_TO { Self::Dots } else { Self::Rows }
    }

    /// Width of a card.
    pub(super) fn width(self) -> u32 {
        match self {
            Self::Rows => 236,
            Self::Dots => 164,
        }
    }

    fn header(self) -> u32 {
        match self {
            Self::Rows => 34,
            Self::Dots => 28,
        }
    }

    fn height(self, steps: usize) -> u32 {
        let rows = match self {
            Self::Rows => count(steps) * 26,
            Self::Dots => count(steps.div_ceil(Self::DOTS_IN_A_ROW)) * Self::DOT,
        };
        self.header() + rows + 8
    }

    /// The middle of a step's left and right end, from the card's corner.
    fn ends(self, index: usize) -> (Point, Point) {
        match self {
            Self::Rows => {
                let y = self.header() + count(index) * 26 + 13;
                (Point { x: 0, y }, Point { x: self.width(), y })
            }
            Self::Dots => {
                let x = 12 + count(index % Self::DOTS_IN_A_ROW) * Self::DOT;
                let y = self.header() + count(index / Self::DOTS_IN_A_ROW) * Self::DOT + Self::DOT / 2;
                (Point { x, y }, Point { x: x + 12, y })
            }
        }
    }
}

/// A point of the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) x: u32,
    pub(super) y: u32,
}

/// A stage.
#[derive(Debug)]
pub(super) struct Card<'a> {
    /// Its name or number.
    pub(super) stage: &'a str,
    /// Its steps, in the order of the file.
    pub(super) steps: Vec<&'a StepReport>,
    /// Its corner at the top left.
    pub(super) at: Point,
    /// Its height.
    pub(super) height: u32,
}

/// A step of one stage uses one of another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// Number of the step that is used.
    pub(super) from: usize,
    /// Number of the step that uses it.
    pub(super) to: usize,
    /// Right end of the first.
    pub(super) start: Point,
    /// Left end of the second.
    pub(super) end: Point,
}

/// The drawing.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) style: Style,
    pub(super) cards: Vec<Card<'a>>,
    pub(super) edges: Vec<Edge>,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Lays the steps of a build out.
pub(super) fn layout(steps: &[StepReport]) -> Layout<'_> {
    let style = Style::of(steps.len());
    let mut cards = cards(steps, style);
    let depths = depths(&cards);
    let (width, height) = place(&mut cards, &depths, style);
    let edges = edges(&cards, style);
    Layout { style, cards, edges, width, height }
}

/// The stages in the order in which they appear, not placed yet.
fn cards(steps: &[StepReport], style: Style) -> Vec<Card<'_>> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut cards: Vec<Card<'_>> = Vec::new();
    for step in steps {
        let index = *known.entry(&step.stage).or_insert_with(|| {
            cards.push(Card { stage: &step.stage, steps: Vec::new(), at: Point { x: 0, y: 0 }, height: 0 });
            cards.len() - 1
        });
        cards[index].steps.push(step);
    }
    for card in &mut cards {
        card.height = style.height(card.steps.len());
    }
    cards
}

/// How far from the left each card stands: one further than the furthest of those it uses. Stages only use earlier ones.
fn depths(cards: &[Card<'_>]) -> Vec<usize> {
    let stage_of: HashMap<usize, usize> = cards
        .iter()
        .enumerate()
        .flat_map(|(index, card)| card.steps.iter().map(move |step| (step.id, index)))
        .collect();
    let mut depths: Vec<usize> = Vec::with_capacity(cards.len());
    for card in cards {
        let used = inputs(card).filter_map(|(input, _)| stage_of.get(&input)).filter_map(|stage| depths.get(*stage));
        let depth = used.max().map_or(0, |depth| depth + 1);
        depths.push(depth);
    }
    depths
}

/// What the steps of a card use, and the place of the user in it.
fn inputs<'a>(card: &'a Card<'_>) -> impl Iterator<Item = (usize, usize)> + 'a {
    let steps = card.steps.iter().enumerate();
    steps.flat_map(|(place, step)| step.inputs.iter().flatten().map(move |input| (*input, place)))
}

/// Puts the cards into columns, and gives the size of the whole.
fn place(cards: &mut [Card<'_>], depths: &[usize], style: Style) -> (u32, u32) {
    let mut columns: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, depth) in depths.iter().enumerate() {
        columns.entry(*depth).or_default().push(index);
    }
    let (mut x, mut bottom) = (MARGIN, 0);
    for indexes in columns.values() {
        let mut y = MARGIN;
        for index in indexes {
            let card = &mut cards[*index];
            if y > MARGIN && y + card.height > COLUMN_HEIGHT {
                x += style.width() + CARD_GAP;
                y = MARGIN;
            }
            card.at = Point { x, y };
            y += card.height + CARD_GAP;
            bottom = bottom.max(card.at.y + card.height);
        }
        x += style.width() + COLUMN_GAP;
    }
    (x.saturating_sub(COLUMN_GAP) + MARGIN, bottom + MARGIN)
}

fn edges(cards: &[Card<'_>], style: Style) -> Vec<Edge> {
    let mut known: HashMap<usize, (usize, Point)> = HashMap::new();
    for (index, card) in cards.iter().enumerate() {
        for (place, step) in card.steps.iter().enumerate() {
            known.insert(step.id, (index, card.at.plus(style.ends(place).1)));
        }
    }
    let mut edges = Vec::new();
    for (index, card) in cards.iter().enumerate() {
        for (input, place) in inputs(card) {
            match known.get(&input) {
                Some((other, start)) if *other != index => {
                    let end = card.at.plus(style.ends(place).0);
                    edges.push(Edge { from: input, to: card.steps[place].id, start: *start, end });
                }
                _ => {}
            }
        }
    }
    edges
}

impl Point {
    fn plus(self, other: Self) -> Self {
        Self { x: self.x + other.x, y: self.y + other.y }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
