//! Bindings made from the contract: one module a world, so that a policy exports just the hooks
//! that it names. They share the types of `facts`.

pub mod facts {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        world: "facts",
        generate_all,
        additional_derives: [PartialEq, Eq],
    });
}

macro_rules! hook {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit/0.1.0",
                world: $world,
                with: {
                    "offloader:policy/types@0.1.0": crate::bindings::facts::offloader::policy::types,
                    "wasi:config/store@0.2.0-rc.1": crate::bindings::facts::wasi::config::store,
                },
                additional_derives: [PartialEq, Eq],
                pub_export_macro: true,
            });
        }
    };
}

hook!(image_selection, "image-selection-policy");
hook!(site_url, "site-url-policy");
hook!(retry, "retry-policy");
hook!(retention, "retention-policy");
hook!(settings_check, "checked-settings");
