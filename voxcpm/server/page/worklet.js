// Plays samples in the order in which they arrive, and tells how many were played and whether it ran dry.
class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunks = [];
    this.offset = 0;
    this.played = 0;
    this.gaps = 0;
    this.isDry = true;
    this.isComplete = false;
    this.told = 0;
    this.port.onmessage = ({ data }) => {
      if (data === "end") this.isComplete = true;
      else this.chunks.push(data);
    };
  }

  process(inputs, [[output]]) {
    let filled = 0;
    while (filled < output.length && this.chunks.length) {
      const chunk = this.chunks[0];
      const count = Math.min(output.length - filled, chunk.length - this.offset);
      output.set(chunk.subarray(this.offset, this.offset + count), filled);
      filled += count;
      this.offset += count;
      if (this.offset === chunk.length) {
        this.chunks.shift();
        this.offset = 0;
      }
    }
    this.played += filled;
    const isDry = filled < output.length;
    if (isDry && !this.isDry && !this.isComplete) this.gaps += 1;
    this.isDry = isDry;
    const isOver = this.isComplete && !this.chunks.length;
    if (isOver || this.played - this.told > 2400) {
      this.told = this.played;
      this.port.postMessage({ played: this.played, gaps: this.gaps, isOver });
    }
    return !isOver;
  }
}
registerProcessor("player", Player);
