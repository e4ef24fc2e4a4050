//! Appending, reading, trimming.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::{Answer, Running, in_time, start};

const RECORDS: &str = "/v1/books/default/records";

async fn read(running: &Running, query: &str) -> Value {
    running.get(&format!("{RECORDS}?{query}")).await.ok().json()
}

fn seqs(body: &Value) -> Vec<u64> {
    body["records"].as_array().unwrap().iter().map(|record| record["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_was_appended_is_read() {
    let running = start().await;
    let appended = running.post(RECORDS, json!({"tags": ["user/42", "a"], "data": {"n": 1}})).await.ok();
    assert_eq!(appended.status, 200);
    let body = appended.json();
    let seq = body["seq"].as_u64().unwrap();
    assert_eq!((&body["count"], &body["repeated"]), (&json!(1), &json!(false)));
    assert_eq!(body["position"].as_u64().unwrap(), seq + 1);
    assert_eq!(appended.position(), seq + 1);

    let answer = running.get(&format!("{RECORDS}?tag=user%2F42")).await.ok();
    let body = answer.json();
    let record = &body["records"][0];
    assert_eq!(record["seq"], seq);
    assert_eq!(record["tags"], json!(["a", "user/42"]));
    assert_eq!(record["data"], json!({"n": 1}));
    assert!(record["time_us"].as_u64().unwrap() > 1_500_000_000_000_000);
    assert_eq!(body["next"], seq + 1);
    assert!(answer.position() > seq);
}

#[tokio::test]
async fn payloads_come_back_byte_for_byte_in_every_form() {
    let running = start().await;
    let json = r#"{"data": {"b" : 1.50, "a":[ 1,2 ]}}"#;
    running.send("POST", RECORDS, &[("content-type", "application/json")], json).await.ok();
    running.append(json!({"data": null})).await;
    running.append(json!({"text": "hello"})).await;
    running.append(json!({"base64": "/wA="})).await;
    running.append(json!({"tags": ["no payload"]})).await;
    let answer = running.get(RECORDS).await.ok();
    assert!(answer.text().contains(r#""data":{"b" : 1.50, "a":[ 1,2 ]}"#), "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["records"][1]["data"], Value::Null);
    assert!(body["records"][1].as_object().unwrap().contains_key("data"));
    assert_eq!(body["records"][2]["text"], "hello");
    assert_eq!(body["records"][3]["base64"], "/wA=");
    assert_eq!(body["records"][4]["text"], "");
}

#[tokio::test]
async fn raw_bytes_are_appended_as_they_are() {
    let running = start().await;
    let payload = Bytes::from_static(b"\x00\xff{not json");
    let headers = [
        ("content-type", "image/x-any"),
        ("boki-tags", "a%2Cb, c"),
        ("boki-if-tail", "a%2Cb=0"),
        ("boki-raise", "lock=3"),
    ];
    let appended = running.send("POST", &format!("{RECORDS}?tag=d&tag=e"), &headers, payload.clone()).await.ok().json();
    let seq = appended["seq"].as_u64().unwrap();
    let one = format!("{RECORDS}/{seq}");
    let raw = running.send("GET", &one, &[("accept", "application/octet-stream")], "").await.ok();
    assert_eq!(raw.body, payload);
    assert_eq!(raw.header("boki-tags"), "a%2Cb, c, d, e");
    assert_eq!(raw.header("boki-seq"), seq.to_string());
    assert_eq!(running.get(&one).await.ok().json()["tags"], json!(["a,b", "c", "d", "e"]));
    // The conditions in headers are judged.
    let headers = [("boki-if-tail", "a%2Cb=0")];
    running.send("POST", RECORDS, &headers, "x").await.is_problem(409, "BK0201");
    let headers = [("boki-if-fence", "lock=2")];
    running.send("POST", RECORDS, &headers, "x").await.is_problem(409, "BK0202");
}

#[tokio::test]
async fn a_batch_is_contiguous() {
    let running = start().await;
    let body = json!({"records": [{"tags": ["t"], "data": 1}, {"tags": ["u"], "text": "two"}, {"data": 3}]});
    let body = running.post(RECORDS, body).await.ok().json();
    let first = body["seq"].as_u64().unwrap();
    assert_eq!(body["count"], 3);
    let read = read(&running, "").await;
    assert_eq!(seqs(&read), [first, first + 1, first + 2]);
    assert_eq!(read["records"][1]["text"], "two");
}

#[tokio::test]
async fn conditions_make_an_append_a_compare_and_swap() {
    let running = start().await;
    let first = running.append(json!({"tags": ["x"], "data": 1, "if": {"tail": {"x": 0}}})).await;
    let refused = running.post(RECORDS, json!({"tags": ["x"], "data": 2, "if": {"tail": {"x": 0}}})).await;
    let problem = refused.is_problem(409, "BK0201");
    assert_eq!((&problem["tag"], &problem["expected"], &problem["actual"]), (&json!("x"), &json!(0), &json!(first)));
    running.append(json!({"tags": ["x"], "data": 2, "if": {"tail": {"x": first}}})).await;
    assert_eq!(read(&running, "tag=x").await["records"].as_array().unwrap().len(), 2);

    running.append(json!({"data": 3, "raise": {"lease": 5}})).await;
    running.append(json!({"data": 4, "if": {"fence": {"lease": 5}}})).await;
    let problem =
        running.post(RECORDS, json!({"data": 5, "if": {"fence": {"lease": 4}}})).await.is_problem(409, "BK0202");
    assert_eq!((&problem["tag"], &problem["epoch"], &problem["fence"]), (&json!("lease"), &json!(4), &json!(5)));
}

#[tokio::test]
async fn an_append_with_an_id_is_added_once() {
    let running = start().await;
    let body = json!({"data": 1, "id": "01234567-89ab-cdef-0123-456789abcdef"});
    let seq = running.append(body.clone()).await;
    let again = running.post(RECORDS, body).await.ok().json();
    assert_eq!((&again["seq"], &again["repeated"]), (&json!(seq), &json!(true)));
    // The same id in a header of a raw append.
    let headers = [("boki-append-id", "0123456789abcdef0123456789abcdef")];
    assert_eq!(running.send("POST", RECORDS, &headers, "1").await.ok().json()["repeated"], true);
    assert_eq!(seqs(&read(&running, "").await), [seq]);
}

#[tokio::test]
async fn a_durable_append_is_accepted() {
    let running = start().await;
    let answer = running.post(RECORDS, json!({"data": 1, "ack": "durable"})).await;
    let body = answer.json();
    assert_eq!(answer.status, if body["seq"].is_null() { 202 } else { 200 });
    let answer = running.post(RECORDS, json!({"data": 1, "ack": "durable", "if": {"tail": {"x": 0}}})).await;
    answer.is_problem(400, "BK0203");
}

#[tokio::test]
async fn pages_lead_from_one_to_the_next_in_both_directions() {
    let running = start().await;
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(running.append(json!({"tags": ["t"], "data": n})).await);
        running.append(json!({"tags": ["other"], "data": n})).await;
    }
    for (direction, expected) in [("next", all.clone()), ("prev", all.iter().rev().copied().collect())] {
        let mut found = Vec::new();
        let mut query = format!("tag=t&dir={direction}&limit=2");
        loop {
            let page = read(&running, &query).await;
            found.extend(seqs(&page));
            let Some(next) = page["next"].as_u64().filter(|_| !seqs(&page).is_empty()) else { break };
            query = format!("tag=t&dir={direction}&limit=2&from={next}");
        }
        assert_eq!(found, expected, "{direction}");
    }
}

#[tokio::test]
async fn a_read_that_waits_gets_the_record_that_comes() {
    let running = start().await;
    let mut waiting = running.connect().await;
    let request = crate::client::request("GET", &format!("{RECORDS}?tag=new&wait=30s"), &[], "");
    let (found, seq) = in_time(async {
        tokio::join!(async { crate::client::answer(waiting.send_request(request).await.unwrap()).await }, async {
            // Not before the reader waits.
            while running.server.node().status().waiting == 0 {
                tokio::task::yield_now().await;
            }
            running.append(json!({"tags": ["new"], "data": 1})).await
        })
    })
    .await;
    assert_eq!(seqs(&found.ok().json()), [seq]);
}

#[tokio::test]
async fn a_client_that_goes_away_waits_no_longer() {
    let running = start().await;
    let mut client = running.connect().await;
    let request = crate::client::request("GET", &format!("{RECORDS}?tag=never&wait=1h"), &[], "");
    let waiting = tokio::spawn(async move { client.send_request(request).await });
    in_time(async {
        while running.server.node().status().waiting == 0 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        while running.server.node().status().waiting != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_read_says_where_to_go_on() {
    let running = start().await;
    let body = read(&running, "from=7&tag=none").await;
    assert_eq!((body["records"].as_array().unwrap().len(), &body["next"]), (0, &json!(7)));
    assert_eq!(read(&running, "dir=prev").await["next"], Value::Null);
    let body = read(&running, "tag=none&wait=1ms&consistency=linearizable").await;
    assert!(seqs(&body).is_empty());
}

#[tokio::test]
async fn the_position_travels_with_the_session() {
    let running = start().await;
    let position = running.post(RECORDS, json!({"data": 1})).await.ok().position();
    let sent = position.to_string();
    let headers = [("boki-position", sent.as_str())];
    for path in ["/v1/books/default/tail", "/v1/books/default/tags", RECORDS] {
        assert!(running.send("GET", path, &headers, "").await.ok().position() >= position, "{path}");
    }
    // A position is never taken back, even where an older one would do.
    let headers = [("boki-position", "9007199254740992")];
    let answer = running.send("GET", &format!("{RECORDS}?consistency=any"), &headers, "").await.ok();
    assert_eq!(answer.position(), 9_007_199_254_740_992);
}

#[tokio::test]
async fn one_record_is_found_by_its_seq_only() {
    let running = start().await;
    let seq = running.append(json!({"tags": ["t"], "data": 1})).await;
    assert_eq!(running.get(&format!("{RECORDS}/{seq}")).await.ok().json()["data"], 1);
    let problem = running.get(&format!("{RECORDS}/{}", seq - 1)).await.is_problem(404, "BK0113");
    assert_eq!(problem["seq"], seq - 1);
    running.get(&format!("{RECORDS}/x")).await.is_problem(404, "BK0501");
}

#[tokio::test]
async fn aux_data_shows_beside_its_record() {
    let running = start().await;
    let seq = running.append(json!({"data": 1})).await;
    let aux = format!("{RECORDS}/{seq}/aux");
    let answer = running.send("PUT", &aux, &[], &b"\x01\x02"[..]).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(running.get(&format!("{RECORDS}/{seq}")).await.ok().json()["aux_base64"], "AQI=");
    running.send("PUT", &aux, &[], "").await.ok();
    assert!(running.get(&format!("{RECORDS}/{seq}")).await.ok().json().get("aux_base64").is_none());
    running.send("PUT", &format!("{RECORDS}/{}/aux", seq + 1000), &[], "x").await.is_problem(404, "BK0113");
}

#[tokio::test]
async fn tail_and_tags() {
    let running = start().await;
    running.append(json!({"tags": ["user/1", "x"], "data": 1})).await;
    let last = running.append(json!({"tags": ["user/2"], "data": 1})).await;
    let get = |path: &'static str| async { running.get(path).await.ok().json() };
    assert_eq!(get("/v1/books/default/tail").await["seq"], last);
    assert_eq!(get("/v1/books/default/tail?tag=user/2&consistency=linearizable").await["seq"], last);
    assert_eq!(get("/v1/books/default/tail?tag=none").await["seq"], 0);
    let page = get("/v1/books/default/tags?prefix=user/&limit=1").await;
    assert_eq!((&page["tags"][0]["tag"], &page["more"]), (&json!("user/1"), &json!(true)));
    let page = get("/v1/books/default/tags?prefix=user/&limit=1&after=user/1").await;
    assert_eq!((&page["tags"], &page["more"]), (&json!([{"tag": "user/2", "seq": last}]), &json!(false)));
}

#[tokio::test]
async fn what_is_trimmed_is_gone() {
    let running = start().await;
    let first = running.append(json!({"tags": ["t"], "data": 1})).await;
    let second = running.append(json!({"tags": ["t"], "data": 2})).await;
    let third = running.append(json!({"tags": ["u"], "data": 3})).await;
    let trim = |body| running.post("/v1/books/default/trim", body);
    trim(json!({"tag": "t", "below": second})).await.ok();
    assert_eq!(seqs(&read(&running, "").await), [second, third]);
    running.get(&format!("{RECORDS}/{first}")).await.is_problem(404, "BK0113");
    let answer: Answer = trim(json!({"below": third})).await.ok();
    assert!(answer.position() > third);
    assert_eq!(seqs(&read(&running, "").await), [third]);
    trim(json!({"tag": "~calls", "below": 1})).await.is_problem(400, "BK0103");
    trim(json!({"tag": "t"})).await.is_problem(400, "BK0503");
}
