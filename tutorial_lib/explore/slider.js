function (id) {
  "use strict";
  let tries = 0;
  function start() {
    const root = document.getElementById(id);
    if (!root) {
      // JupyterLab runs the script before it puts the output into the page.
      if (tries++ < 200) setTimeout(start, 50);
      return;
    }
    const data = JSON.parse(root.querySelector(".explore-data").textContent);
    const picture = root.querySelector(".explore-picture");
    const sentence = root.querySelector(".explore-sentence");
    const sliders = Array.from(root.querySelectorAll("input[type=range]"));
    const first = data.pictures.indexOf("");
    const sources = data.pictures.map(function (text, number) {
      return number === first ? picture.src : "data:image/png;base64," + text;
    });
    function show() {
      let frame = 0;
      sliders.forEach(function (slider, number) {
        frame = frame * data.texts[number].length + Number(slider.value);
      });
      picture.src = sources[frame];
      picture.alt = data.sentences[frame];
      sentence.textContent = data.sentences[frame];
      sliders.forEach(function (slider, number) {
        const text = data.texts[number][Number(slider.value)];
        slider.setAttribute("aria-valuetext", text + ". " + data.sentences[frame]);
        slider.parentNode.querySelector(".explore-value").textContent = text;
      });
    }
    sliders.forEach(function (slider) { slider.addEventListener("input", show); });
    root.querySelector(".explore-controls").hidden = false;
    show();
  }
  start();
}
