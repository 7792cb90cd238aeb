//! Mutated replies and addresses: the fuzz targets' checks on a small corpus.

#[path = "../../../../fuzz/src/broker.rs"]
mod broker;
#[path = "../../../../fuzz/src/mutation.rs"]
mod mutation;
#[path = "../../../../fuzz/src/replies.rs"]
mod replies;

const REPLIES: [&[u8]; 9] = [
    b"\x00{\"a\": {\"b\": [{\"c\": 1}, {\"c\": \"2.5\"}]}}",
    b"\x01{\"jobs\": [{\"state\": \"open\"}, {\"state\": \"done\"}]}",
    b"\x02a: &x {b: 12}\nc: *x\nd: [1, 2]\n",
    b"\x03<?xml version=\"1.0\"?><a x=\"1\"><b>12</b><!-- c --><b/></a>",
    b"\x04# HELP up x\n# TYPE up gauge\nup{job=\"x\",i=\"\\\"\"} 1.5 1700000000\nup{job=\"y\"} NaN\n",
    b"\x05{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":{},\"value\":[1,\"7.5\"]}]}}",
    b"\x06{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"+Inf\"]}}",
    b"\x06{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse error\"}",
    b"\x07{\"items\":[{\"name\":\"q1\",\"messages\":3,\"messages_unacknowledged\":1,\"message_stats\":{\"publish_details\":{\"rate\":0.5}}}],\"filtered_count\":1,\"page_count\":1}",
];
const PIECES: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"<",
    b">",
    b"&a;",
    b"1e999",
    b"-9223372036854775809",
    b"null",
    b"\xff",
    b"\\ud800",
    b"\n- ",
    b": ",
    b"<![CDATA[",
];

#[test]
fn mutated_replies_are_read_or_refused() {
    mutation::each(2_500, &REPLIES, &PIECES, replies::check);
}

#[test]
fn mutated_addresses_of_brokers_are_read_or_refused_without_their_password() {
    let addresses: [&[u8]; 6] = [
        b"host:5672/vhost",
        b"[::1]:5671/%2f?heartbeat=5",
        b"h,i:1/",
        b"h/a%zz",
        b"@h:99999/",
        b"amqps://u:p@h:1/v?x=y#z",
    ];
    let pieces: [&[u8]; 12] = [b":", b"/", b"@", b"%", b"?", b"#", b"[", b"]", b"//", b"%00", b"\xc3\xa9", b" "];
    mutation::each(3_000, &addresses, &pieces, broker::check);
}
