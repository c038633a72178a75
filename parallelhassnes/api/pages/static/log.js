// The log in view: more of it while one scrolls to either end, what is new while one follows. However large the file
// is, only some windows of it are in the page.
const MOST_LINES = 4000;
const FOLLOW_MS = 700;
const NEAR_PX = 600;

class Log {
  constructor(section) {
    this.section = section;
    this.box = section.querySelector("[data-lines]");
    this.foot = section.querySelector("[data-foot]");
    this.button = section.querySelector("[data-follow]");
    const data = section.dataset;
    this.start = Number(data.start);
    this.end = Number(data.end);
    this.size = Number(data.size);
    this.next = Number(data.next);
    this.ended = data.ended === "1";
    this.busy = false;
    this.following = false;
  }

  run() {
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.button.hidden = this.ended && this.end >= this.size;
    this.button.addEventListener("click", () => this.follow(!this.following));
    const target = location.hash.startsWith("#L") && document.getElementById(location.hash.slice(1));
    if (target) target.scrollIntoView({ block: "center" });
    else if (this.end >= this.size && !new URLSearchParams(location.search).has("at")) {
      this.box.scrollTop = this.box.scrollHeight;
      if (!this.ended) this.follow(true);
    }
    this.say();
  }

  async fetch(query) {
    const address = `${this.section.dataset.address}?${new URLSearchParams({ file: this.section.dataset.file, ...query })}`;
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(`${answer.status}`);
    const number = (name) => Number(answer.headers.get(name));
    return { html: await answer.text(), start: number("X-Start"), end: number("X-End"), size: number("X-Size"), next: number("X-Line"), ended: answer.headers.get("X-Ended") === "1" };
  }

  async once(work) {
    if (this.busy) return;
    this.busy = true;
    try {
      await work();
      this.say();
    } catch {
      this.foot.textContent = "The server does not answer; the log goes on when it does.";
    } finally {
      this.busy = false;
    }
  }

  async later() {
    const got = await this.fetch({ at: this.end, number: this.next });
    this.size = got.size;
    this.ended = got.ended;
    if (got.start < this.end) return this.anew(); // the middle of a large log was cut out
    if (got.end === this.end) return false;
    this.box.insertAdjacentHTML("beforeend", got.html);
    this.end = got.end;
    this.next = got.next;
    this.trim("start");
    return true;
  }

  async earlier() {
    const got = await this.fetch({ before: this.start });
    const height = this.box.scrollHeight;
    this.box.insertAdjacentHTML("afterbegin", got.html);
    this.box.scrollTop += this.box.scrollHeight - height;
    this.start = got.start;
    this.trim("end");
  }

  async anew() {
    const got = await this.fetch({});
    this.box.innerHTML = got.html;
    this.start = got.start;
    this.end = got.end;
    this.size = got.size;
    this.next = got.next;
    this.box.scrollTop = this.box.scrollHeight;
    return true;
  }

  // Lines beyond the most go at the far end; their place is found again by the server.
  trim(side) {
    const left = this.box.childElementCount - MOST_LINES;
    if (left <= 0) return;
    this.dropped = side;
    const height = this.box.scrollHeight;
    for (let i = 0; i < left; i += 1) {
      const line = side === "start" ? this.box.firstElementChild : this.box.lastElementChild;
      line.remove();
    }
    const edge = side === "start" ? this.box.firstElementChild : this.box.lastElementChild;
    if (side === "start") {
      this.box.scrollTop -= height - this.box.scrollHeight;
      this.start = Number(edge.dataset.at);
    } else {
      this.end = Number(edge.dataset.end);
      this.next = Number(edge.id.slice(1)) + 1;
    }
  }

  scrolled() {
    const below = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight;
    if (this.following && below > 80) this.follow(false);
    if (this.box.scrollTop < NEAR_PX && this.start > 0) this.once(() => this.earlier());
    else if (below < NEAR_PX && this.end < this.size) this.once(() => this.later());
  }

  follow(on) {
    this.following = on;
    this.button.setAttribute("aria-pressed", String(on));
    clearTimeout(this.timer);
    if (on) this.tail();
    this.say();
  }

  async tail() {
    await this.once(async () => {
      if (this.size - this.end > 1 << 20) await this.anew();
      while ((await this.later()) && this.end < this.size);
    });
    if (!this.following) return;
    this.box.scrollTop = this.box.scrollHeight;
    if (this.ended && this.end >= this.size) {
      this.follow(false);
      this.button.hidden = true;
    } else this.timer = setTimeout(() => this.tail(), FOLLOW_MS);
  }

  say() {
    const parts = [];
    if (this.start > 0) parts.push(`${this.start.toLocaleString()} bytes before this`);
    if (this.end < this.size) parts.push(`${(this.size - this.end).toLocaleString()} bytes after this`);
    parts.push(this.ended ? "the attempt has ended" : this.following ? "following" : "the attempt is running");
    this.foot.textContent = parts.join(" · ");
  }
}

export function log() {
  const section = document.querySelector("[data-log]");
  if (section) new Log(section).run();
}
