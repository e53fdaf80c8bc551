//! Where the guest's picture lies on a screen that may be of another size.

use sekisho_seatlink::{AXIS_MAX, Mode, Rect};

/// The guest's picture on the screen: in the middle, enlarged by a whole number where it fits so, and
/// made smaller where it does not fit, its sides in proportion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    picture: Mode,
    on: Rect,
}

impl Place {
    /// Where a picture lies on a screen.
    pub fn new(picture: Mode, screen: Mode) -> Self {
        let (width, height) = (picture.width(), picture.height());
        let times = (screen.width() / width).min(screen.height() / height);
        let (width, height) = if times > 0 {
            (width * times, height * times)
        } else {
            fit(picture, screen)
        };
        let on = Rect {
            x: (screen.width() - width) / 2,
            y: (screen.height() - height) / 2,
            width,
            height,
        };
        Self { picture, on }
    }

    /// The part of the screen that the picture takes.
    pub fn on(&self) -> Rect {
        self.on
    }

    /// The part of the screen that shows any pixel of a part of the picture.
    pub fn shown(&self, part: Rect) -> Option<Rect> {
        let part = part.within(self.picture)?;
        let (x, width) = span(part.x, part.width, self.picture.width(), self.on.width);
        let (y, height) = span(part.y, part.height, self.picture.height(), self.on.height);
        Some(Rect {
            x: self.on.x + x,
            y: self.on.y + y,
            width,
            height,
        })
    }

    /// The column of the picture that the screen's column shows, counted from the picture's edge.
    pub fn column(&self, x: u32) -> u32 {
        scale(x, self.on.width, self.picture.width())
    }

    /// The same for lines.
    pub fn line(&self, y: u32) -> u32 {
        scale(y, self.on.height, self.picture.height())
    }

    /// The place on the picture's axes of a point of the screen; at the picture's edge where it is
    /// outside.
    pub fn axes(&self, x: u32, y: u32) -> (u16, u16) {
        let axis = |at: u32, start: u32, length: u32| {
            let at = at.saturating_sub(start).min(length - 1);
            let last = length.saturating_sub(1).max(1);
            let axis = u64::from(at) * u64::from(AXIS_MAX) / u64::from(last);
            u16::try_from(axis).unwrap_or(AXIS_MAX)
        };
        (
            axis(x, self.on.x, self.on.width),
            axis(y, self.on.y, self.on.height),
        )
    }
}

/// The largest sides in proportion that fit, at least one pixel each.
fn fit(picture: Mode, screen: Mode) -> (u32, u32) {
    let narrow = u64::from(screen.width()) * u64::from(picture.height())
        <= u64::from(screen.height()) * u64::from(picture.width());
    let part = |side: u32, of: u32, other: u32| {
        u32::try_from(u64::from(side) * u64::from(of) / u64::from(other))
            .unwrap_or(1)
            .max(1)
    };
    if narrow {
        let height = part(screen.width(), picture.height(), picture.width());
        (screen.width(), height)
    } else {
        let width = part(screen.height(), picture.width(), picture.height());
        (width, screen.height())
    }
}

/// From 0 to below `to`, what lies where `at` lies from 0 to below `from`.
fn scale(at: u32, from: u32, to: u32) -> u32 {
    let scaled = u64::from(at) * u64::from(to) / u64::from(from.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX).min(to - 1)
}

/// Every place of `to` that shows one of `length` places from `start` on of `from`; there may be one
/// more on each side.
fn span(start: u32, length: u32, from: u32, to: u32) -> (u32, u32) {
    let place = |at: u64| at * u64::from(to) / u64::from(from);
    let first = place(start.into()).min(u64::from(to) - 1);
    let end = place(u64::from(start) + u64::from(length)) + 1;
    let end = end.min(u64::from(to));
    let narrow = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    (narrow(first), narrow(end - first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mode(width: u32, height: u32) -> Mode {
        Mode::new(width, height).unwrap()
    }

    #[test]
    fn a_smaller_picture_is_enlarged_by_whole_numbers_and_a_larger_one_fits() {
        let on = |picture, screen| {
            let Rect {
                x,
                y,
                width,
                height,
            } = Place::new(picture, screen).on();
            (x, y, width, height)
        };
        let screen = mode(1920, 1080);
        assert_eq!(on(screen, screen), (0, 0, 1920, 1080));
        assert_eq!(on(mode(640, 480), screen), (320, 60, 1280, 960));
        assert_eq!(on(mode(1280, 720), screen), (320, 180, 1280, 720));
        assert_eq!(on(mode(3840, 2160), screen), (0, 0, 1920, 1080));
        assert_eq!(on(mode(1600, 1200), screen), (240, 0, 1440, 1080));
        assert_eq!(on(mode(8192, 1), screen), (0, 539, 1920, 1));
    }

    #[test]
    fn the_corners_are_the_ends_of_the_axes() {
        let place = Place::new(mode(640, 480), mode(1920, 1080));
        assert_eq!(place.axes(320, 60), (0, 0));
        assert_eq!(place.axes(1599, 1019), (AXIS_MAX, AXIS_MAX));
        assert_eq!(place.axes(0, 1079), (0, AXIS_MAX));
        assert_eq!(Place::new(mode(1, 1), mode(1, 1)).axes(5, 5), (0, 0));
    }

    proptest! {
        /// The picture is on the screen, and what shows a part of it is found again.
        #[test]
        fn every_shown_pixel_of_a_part_is_found(
            (picture, screen) in ((1_u32..300, 1_u32..300), (1_u32..300, 1_u32..300)),
            (x, y, width, height) in (0_u32..300, 0_u32..300, 1_u32..300, 1_u32..300),
        ) {
            let screen = mode(screen.0, screen.1);
            let place = Place::new(mode(picture.0, picture.1), screen);
            prop_assert_eq!(place.on().within(screen), Some(place.on()));
            let part = Rect { x, y, width, height };
            let shown = place.shown(part);
            if let Some(shown) = shown {
                prop_assert_eq!(shown.within(screen), Some(shown));
            }
            for column in 0..place.on().width {
                let source = place.column(column);
                prop_assert!(source < picture.0);
                let inside = (x..x + width).contains(&source) && y < picture.1;
                let found = shown.is_some_and(|shown| {
                    (shown.x..shown.x + shown.width).contains(&(place.on().x + column))
                });
                prop_assert!(!inside || found, "{} {:?}", column, shown);
            }
        }
    }
}
