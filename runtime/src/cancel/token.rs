//! A flag that travels from parents to children, and that can be waited for.
//!
//! Owns [`Token`], [`WaitCancelled`] and [`DropGuard`]. A node's life:
//! ```text
//! live, linked to its parent --cancel, its own or an ancestor's--> cancelled, not linked
//!                            --last token and wait gone----------> unlinked, freed
//! ```
//! Invariants:
//! - a cancel marks the whole subtree before the first waker is called, so nobody who is woken sees a child
//!   that is not cancelled yet;
//! - nothing is borrowed while wakers run: they may cancel, wait, make children and drop them;
//! - a child holds its parents, a parent knows its children weakly: a child that is dropped leaves nothing
//!   behind, and one whose parent's tokens are gone still hears from its grandparents.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::children::Children;
use crate::contain::let_go;
use crate::sync::{WaitKey, WaitRoom};
use crate::task::info::Note;

/// Says that something is to end. Tasks look at it, wait for it, or have their operations listen to it.
///
/// A clone is the same token. A [`child`](Self::child) is cancelled with its parent and can be cancelled
/// alone; that does not reach the parent. Dropping tokens cancels nothing: see
/// [`drop_guard`](Self::drop_guard) for that. It is `!Send`: a token is of one core.
///
/// Memory: a token is one allocation, a clone none. Waiting allocates nothing once the token has had as
/// many waiters at a time before: their list keeps its memory.
///
/// ```
/// use coreloop::cancel::Token;
///
/// coreloop::run(async {
///     let server = Token::new();
///     let (one, two) = (server.child(), server.child());
///     one.cancel();
///     assert!(one.is_cancelled() && !server.is_cancelled());
///     let task = coreloop::spawn(two.cancelled());
///     server.cancel();
///     task.await.unwrap();
/// })
/// .unwrap();
/// ```
///
/// ```compile_fail,E0277
/// fn must_be_send<T: Send>() {}
/// must_be_send::<coreloop::cancel::Token>();
/// ```
#[derive(Clone)]
pub struct Token(Rc<Node>);

struct Node {
    cancelled: Cell<bool>,
    room: WaitRoom<(), ()>,
    children: RefCell<Children<Weak<Node>>>,
    parent: Option<Rc<Node>>,
    /// Where it stands among its parent's children; none once it does not.
    place: Cell<Option<u32>>,
}

impl Token {
    /// One that nobody has cancelled.
    pub fn new() -> Self {
        Self(Rc::new(Node::new(None)))
    }

    /// A token that is cancelled when this one is, and now if this one was. Cancelling the child does not
    /// reach this one. When the child is dropped it is taken off this one's list at once.
    pub fn child(&self) -> Self {
        if self.is_cancelled() {
            let node = Node::new(None);
            node.cancelled.set(true);
            return Self(Rc::new(node));
        }
        let node = Rc::new(Node::new(Some(self.0.clone())));
        let place = self.0.children.borrow_mut().insert(Rc::downgrade(&node));
        node.place.set(Some(place));
        Self(node)
    }

    /// Cancels it and all that descend from it. A second time does nothing.
    ///
    /// All of them are cancelled before anybody is woken; then those who wait are, a token's own waiters in
    /// the order in which they came, then its children's in the order in which those were made. A waker
    /// that panics does not keep others from being woken; its panic is contained.
    pub fn cancel(&self) {
        if self.is_cancelled() {
            return;
        }
        self.0.unlink();
        if self.0.children.borrow().len() == 0 {
            self.0.cancelled.set(true);
            self.0.room.hand_all(|| ());
            self.0.room.wake();
            return;
        }
        let mut nodes = vec![self.0.clone()];
        let mut next = 0;
        while let Some(node) = nodes.get(next).cloned() {
            next += 1;
            node.cancelled.set(true);
            node.room.hand_all(|| ());
            for child in node.children.borrow_mut().drain().filter_map(|weak| weak.upgrade()) {
                child.place.set(None);
                nodes.push(child);
            }
        }
        for node in &nodes {
            node.room.wake();
        }
    }

    /// Whether it was cancelled, or one that it descends from.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.get()
    }

    /// Waits until it is cancelled; ready at once if it was. Keeps the token alive while it waits, and
    /// waits for ever if nobody is left who could cancel it.
    ///
    /// # Cancel safety
    /// A dropped future waits no longer; there is nothing to lose. A forgotten one keeps its entry in the
    /// token's list, and the token.
    pub fn cancelled(&self) -> WaitCancelled {
        WaitCancelled { node: self.0.clone(), key: None }
    }

    /// Cancels the token when the guard is dropped: by return, error, panic or cancel.
    ///
    /// ```
    /// use coreloop::cancel::Token;
    ///
    /// let token = Token::new();
    /// drop(token.clone().drop_guard());
    /// assert!(token.is_cancelled());
    ///
    /// let token = Token::new();
    /// let same = token.clone().drop_guard().disarm();
    /// assert!(!same.is_cancelled());
    /// ```
    pub fn drop_guard(self) -> DropGuard {
        DropGuard(Some(self))
    }

    /// Whether both are one token: clones of each other, and not one the other's child.
    pub fn is_same(&self, other: &Token) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Default for Token {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("cancelled", &self.is_cancelled())
            .field("waiting", &self.0.room.waiting())
            .field("children", &self.0.children.borrow().len())
            .finish()
    }
}

impl Node {
    fn new(parent: Option<Rc<Node>>) -> Self {
        Self {
            cancelled: Cell::new(false),
            room: WaitRoom::new(Note::Token),
            children: RefCell::new(Children::new()),
            parent,
            place: Cell::new(None),
        }
    }

    /// Takes it off its parent's list.
    fn unlink(&self) {
        if let (Some(parent), Some(place)) = (&self.parent, self.place.take()) {
            parent.children.borrow_mut().remove(place);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.unlink();
        // In a loop: a chain of parents may be longer than the stack is deep.
        let mut parent = self.parent.take();
        while let Some(mut node) = parent.and_then(Rc::into_inner) {
            node.unlink();
            parent = node.parent.take();
        }
    }
}

/// The future of [`Token::cancelled`]. Once ready it stays so.
#[must_use = "a wait does nothing until it is awaited"]
pub struct WaitCancelled {
    node: Rc<Node>,
    key: Option<WaitKey>,
}

impl WaitCancelled {
    pub(super) fn is_over(&self) -> bool {
        self.node.cancelled.get()
    }
}

impl Future for WaitCancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(key) = this.key {
            let handed = this.node.room.poll(key, cx);
            if handed.is_ready() {
                this.key = None;
            }
            return handed;
        }
        if this.is_over() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        // The clone was foreign code, which may have cancelled the token.
        if this.is_over() {
            let_go(waker);
            return Poll::Ready(());
        }
        this.key = Some(this.node.room.enter(waker, ()));
        Poll::Pending
    }
}

impl Drop for WaitCancelled {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.node.room.leave(key);
        }
    }
}

impl fmt::Debug for WaitCancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitCancelled").field("cancelled", &self.is_over()).finish_non_exhaustive()
    }
}

/// Cancels a token when it is dropped. See [`Token::drop_guard`].
#[derive(Debug)]
#[must_use = "dropping the guard cancels the token"]
pub struct DropGuard(Option<Token>);

impl DropGuard {
    /// The token, not to be cancelled any more by this.
    pub fn disarm(mut self) -> Token {
        self.0.take().expect("only this takes it out, and it takes the guard")
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel();
        }
    }
}
