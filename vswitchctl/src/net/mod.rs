//! Commands for the logical network, each in its file. The objects are alike:
//! arguments, the struct of what a user sets (`…Spec`, also the form in files), the
//! struct of what is shown (`…View`), and the conversions from and to the API.

pub mod acl;
pub mod apply;
pub mod change;
pub mod chassis;
pub mod export;
pub mod labels;
pub mod object;
pub mod receipt;
pub mod router;
pub mod router_port;
pub mod switch;
pub mod switch_port;
pub mod watch;
