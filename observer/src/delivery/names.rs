//! How the names of sinks' hosts are looked up.

/// Has the C library look in `/etc/hosts` and ask the servers of `/etc/resolv.conf`, whatever the host's `nsswitch.conf` says.
///
/// For the static agent. glibc has these two built in (since 2.34) and loads any other way (`resolve`, `mymachines`, `mdns`, ...) from
/// the host's `libnss_*.so`, which want the very C library that they were built with: where the host has another release, the
/// process ends with a failed assertion or a division by zero. An agent that is linked dynamically has the host's C library, and
/// looks names up as everybody else does there.
///
/// # Safety
///
/// No other thread may be looking up a name.
pub unsafe fn keep_to_files_and_dns() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        unsafe extern "C" {
            // <nss.h>; not in the `libc` crate.
            fn __nss_configure_lookup(
                database: *const libc::c_char,
                services: *const libc::c_char,
            ) -> libc::c_int;
        }
        // SAFETY: two strings that are not kept; by our caller, nobody else uses the table of databases.
        unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    }
}
