// What a click changes is shown before the next one is sent, so that none is lost and none overtakes another. Gradio's
// queue would keep the order as well, but answers by a stream that it closes between clicks: one that is sent while the
// stream closes gets no answer until the next.
window.m4Turns = {
  last: Promise.resolve(),
  waiting: [],
  // Before an event is sent: resolves to what it sends once all earlier ones are shown.
  take(values) {
    const earlier = this.last;
    this.last = new Promise((give) => this.waiting.push(give));
    return earlier.then(() => values);
  },
  // After it is shown, or has failed.
  give() {
    this.waiting.shift()?.();
  },
};
