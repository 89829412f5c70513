//! Real services from Debian's packages, with the benchmarks that come with them, in an image of their own: the tests' root and
//! these beside it.

use crate::docker::Docker;
use crate::{lab, rootfs, scratch};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

pub const IMAGE: &str = "observer-services:1";

/// A server that a container runs as its first process, and what keeps it busy.
#[derive(Debug)]
pub struct Service {
    pub name: &'static str,
    pub server: &'static [&'static str],
    /// Succeeds when the server answers.
    pub asks: &'static [&'static str],
    /// Each ends by itself, in about a second.
    pub benchmarks: &'static [&'static [&'static str]],
}

/// With its log, so that there are writes and syncs; its append-only file is rewritten by a child of its own.
pub const REDIS: Service = Service {
    name: "redis-server",
    server: &["redis-server", "--bind", "127.0.0.1", "--dir", "/tmp", "--save", "", "--appendonly", "yes"],
    asks: &["redis-cli", "ping"],
    benchmarks: &[
        &["redis-benchmark", "-q", "-n", "2000", "-c", "10", "-t", "set,get,incr,lpush,lpop"],
        &[
            "redis-benchmark",
            "-q",
            "-n",
            "2000",
            "-c",
            "10",
            "-P",
            "4",
            "-t",
            "sadd,hset,zadd,mset,lrange_100",
        ],
        &["redis-cli", "bgrewriteaof"],
    ],
};

pub const NGINX: Service = Service {
    name: "nginx",
    server: &["nginx", "-c", "/etc/nginx.conf"],
    asks: &["ab", "-n", "1", "http://127.0.0.1:8080/"],
    benchmarks: &[
        &["ab", "-q", "-n", "2000", "-c", "10", "-k", "http://127.0.0.1:8080/"],
        &["ab", "-q", "-n", "500", "-c", "10", "http://127.0.0.1:8080/large"],
        // Nothing there.
        &["ab", "-q", "-n", "100", "-c", "10", "http://127.0.0.1:8080/nothing"],
    ],
};

const NGINX_CONF: &str = "daemon off;
worker_processes 2;
user nobody nogroup;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log /tmp/access.log;
    sendfile on;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 127.0.0.1:8080;
        root /srv;
    }
}
";

/// Imports the image; none, and said so, where a package is missing.
pub fn import(docker: &Docker, attacks: &Path) -> bool {
    // Debian has redis-server's program in redis-tools, under this name; the package redis-server adds a link to it.
    if !["redis-check-rdb", "redis-benchmark", "nginx", "ab"].into_iter().all(lab::installed) {
        return false;
    }
    static IMPORTED: OnceLock<()> = OnceLock::new();
    IMPORTED.get_or_init(|| {
        let root = scratch::subdir("services").join("root");
        rootfs::run(Command::new("cp").arg("-a").arg(rootfs::get(attacks)).arg(&root));
        for dir in ["srv", "var/log/nginx", "var/lib/nginx"] {
            fs::create_dir_all(root.join(dir)).expect("make the root");
        }
        for (program, to) in [
            ("redis-check-rdb", "/usr/bin/redis-server"),
            ("redis-cli", "/usr/bin/redis-cli"),
            ("redis-benchmark", "/usr/bin/redis-benchmark"),
            ("nginx", "/usr/bin/nginx"),
            ("ab", "/usr/bin/ab"),
        ] {
            rootfs::install(&root, &rootfs::which(program), to);
        }
        fs::write(root.join("etc/nginx.conf"), NGINX_CONF).expect("nginx's configuration");
        fs::write(root.join("srv/index.html"), "<p>It works.\n").expect("a page");
        fs::write(root.join("srv/large"), vec![b'x'; 100_000]).expect("a large page");
        let tar = root.with_extension("tar");
        rootfs::run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
        rootfs::run(docker.command(&["import"]).arg(&tar).arg(IMAGE));
        // Docker has it now.
        fs::remove_file(tar).and_then(|()| fs::remove_dir_all(root)).expect("remove the root");
    });
    true
}

impl Service {
    /// Runs words in a container of their own, which shares the network of the server's: what a client calls is not the
    /// server's.
    pub fn client(&self, docker: &Docker, server: &str, words: &[&str]) -> Output {
        let network = format!("container:{server}");
        let mut command = docker.command(&["run", "--rm", "--network", &network, IMAGE]);
        command.args(words).output().expect("run docker")
    }
}
