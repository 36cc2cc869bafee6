"use strict";
(() => {
  // The film: one frame at a time, chosen by the slider or played. Without this script all frames lie in a row.
  for (const film of document.querySelectorAll("[data-film]")) {
    const frames = [...film.querySelectorAll(".frame")];
    if (frames.length < 2) continue;
    const controls = film.querySelector(".controls");
    const slider = controls.querySelector("input");
    const play = controls.querySelector("button");
    let timer = 0;
    const show = (index) => {
      frames.forEach((frame, i) => frame.classList.toggle("shown", i === index));
      slider.value = index;
      slider.setAttribute("aria-valuetext", frames[index].querySelector("figcaption").textContent.trim());
    };
    const halt = () => {
      clearInterval(timer);
      timer = 0;
      play.setAttribute("aria-label", "Play");
      play.classList.remove("playing");
    };
    const next = () => {
      const index = Number(slider.value) + 1;
      if (index >= frames.length) return halt();
      show(index);
    };
    slider.addEventListener("input", () => { halt(); show(Number(slider.value)); });
    play.addEventListener("click", () => {
      if (timer) return halt();
      if (Number(slider.value) >= frames.length - 1) show(0);
      play.setAttribute("aria-label", "Pause");
      play.classList.add("playing");
      timer = setInterval(next, 350);
    });
    film.classList.add("live");
    film.querySelector(".frames").removeAttribute("tabindex");
    controls.hidden = false;
    show(frames.length - 1);
  }

  // Charts: the values at the pointer, or at the place that the arrow keys have reached.
  const number = (v) => Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(3)));
  const time = (s) => s < 60 ? `${Number(s.toPrecision(2))} s`
    : s < 3600 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`
    : `${Math.floor(s / 3600)} h ${Math.round(s % 3600 / 60)} min`;
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle; else high = middle;
    }
    return x - xs[low] < xs[high] - x ? low : high;
  };
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  for (const plot of document.querySelectorAll(".plot")) {
    const ground = plot.querySelector(".ground");
    const data = JSON.parse(plot.querySelector("script").textContent);
    const rule = element("i", "cursor");
    const box = element("div", "values-at");
    box.setAttribute("role", "status");
    ground.append(rule, box);
    let place = -1;
    const hide = () => plot.classList.remove("reading");
    const read = (x) => {
      const longest = data.lines.reduce((a, b) => a.x.length >= b.x.length ? a : b);
      place = nearest(longest.x, x);
      const at = longest.x[place];
      const left = 100 * at / data.end;
      rule.style.left = `${left}%`;
      box.style.left = left > 55 ? "auto" : `calc(${left}% + 10px)`;
      box.style.right = left > 55 ? `calc(${100 - left}% + 10px)` : "auto";
      box.replaceChildren(element("strong", "", data.axis === "time" ? time(at) : `${number(at)} images`));
      for (const line of data.lines.slice(0, 10)) {
        const i = nearest(line.x, at);
        const row = element("span", `c${line.slot % 6}`);
        row.append(element("i", "key"), element("b", "", number(line.y[i])), element("em", "", line.name));
        box.append(row);
      }
      plot.classList.add("reading");
    };
    ground.addEventListener("pointermove", (event) => {
      const frame = ground.getBoundingClientRect();
      read(data.end * Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1));
    });
    ground.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) { if (event.key === "Escape") hide(); return; }
      event.preventDefault();
      const xs = data.lines.reduce((a, b) => a.x.length >= b.x.length ? a : b).x;
      read(xs[Math.min(Math.max(place < 0 ? (step > 0 ? 0 : xs.length - 1) : place + step, 0), xs.length - 1)]);
    });
  }
})();
