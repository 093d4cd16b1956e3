function (id) {
  "use strict";
  let tries = 0;

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return sign * (exponent ? Math.pow(2, exponent - 15) * (1 + fraction / 1024) : fraction * Math.pow(2, -24));
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), function (letter) { return letter.charCodeAt(0); });
  }

  function network(description) {
    const packed = bytes(description.weights);
    const numbers = new Float32Array(packed.length / 2);
    for (let i = 0; i < numbers.length; i++) numbers[i] = half(packed[2 * i] | (packed[2 * i + 1] << 8));
    let used = 0;
    return description.layers.map(function (layer) {
      const weights = layer.kind === "conv" ? layer.outputs * layer.inputs * layer.size * layer.size
        : layer.kind === "linear" ? layer.outputs * layer.inputs : 0;
      const own = Object.assign({ weight: numbers.subarray(used, used + weights) }, layer);
      used += weights;
      if (weights) { own.bias = numbers.subarray(used, used + layer.outputs); used += layer.outputs; }
      return own;
    });
  }

  const steps = {
    normalize: function (layer, x) {
      return { v: x.v.map(function (value) { return (value - layer.mean[0]) / layer.std[0]; }), c: x.c, h: x.h, w: x.w };
    },
    relu: function (layer, x) {
      return { v: x.v.map(function (value) { return Math.max(0, value); }), c: x.c, h: x.h, w: x.w };
    },
    maxpool: function (layer, x) {
      const s = layer.size, h = Math.floor(x.h / s), w = Math.floor(x.w / s), v = new Float32Array(x.c * h * w);
      for (let c = 0; c < x.c; c++) for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
        let best = -Infinity;
        for (let a = 0; a < s; a++) for (let b = 0; b < s; b++) best = Math.max(best, x.v[(c * x.h + i * s + a) * x.w + j * s + b]);
        v[(c * h + i) * w + j] = best;
      }
      return { v: v, c: x.c, h: h, w: w };
    },
    conv: function (layer, x) {
      const k = layer.size, p = layer.padding, s = layer.stride;
      const h = Math.floor((x.h + 2 * p - k) / s) + 1, w = Math.floor((x.w + 2 * p - k) / s) + 1;
      const v = new Float32Array(layer.outputs * h * w);
      for (let o = 0; o < layer.outputs; o++) for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
        let sum = layer.bias[o];
        for (let c = 0; c < layer.inputs; c++) for (let a = 0; a < k; a++) for (let b = 0; b < k; b++) {
          const y = i * s + a - p, z = j * s + b - p;
          if (y >= 0 && y < x.h && z >= 0 && z < x.w) {
            sum += layer.weight[((o * layer.inputs + c) * k + a) * k + b] * x.v[(c * x.h + y) * x.w + z];
          }
        }
        v[(o * h + i) * w + j] = sum;
      }
      return { v: v, c: layer.outputs, h: h, w: w };
    },
    linear: function (layer, x) {
      const v = new Float32Array(layer.outputs);
      for (let o = 0; o < layer.outputs; o++) {
        let sum = layer.bias[o];
        for (let i = 0; i < layer.inputs; i++) sum += layer.weight[o * layer.inputs + i] * x.v[i];
        v[o] = sum;
      }
      return { v: v, c: layer.outputs, h: 1, w: 1 };
    },
  };

  function probabilities(layers, pixels, data) {
    let x = { v: pixels, c: 1, h: data.rows, w: data.columns };
    layers.forEach(function (layer) { x = steps[layer.kind](layer, x); });
    const top = Math.max.apply(null, x.v);
    const raised = Array.from(x.v, function (value) { return Math.exp(value - top); });
    const sum = raised.reduce(function (a, b) { return a + b; });
    return raised.map(function (value) { return value / sum; });
  }

  function entropy(p) {
    return p.reduce(function (sum, value) { return value > 0 ? sum - value * Math.log(value) : sum; }, 0);
  }

  function start() {
    const root = document.getElementById(id);
    if (!root) {
      // JupyterLab runs the script before it puts the output into the page.
      if (tries++ < 200) setTimeout(start, 50);
      return;
    }
    const find = function (selector) { return root.querySelector(selector); };
    const data = JSON.parse(find(".pad-data").textContent);
    const networks = data.networks.map(network);
    const pad = find(".pad-canvas"), small = find(".pad-small"), chooser = find(".pad-example");
    const ink = pad.getContext("2d");
    let strokes = [], drawing = false;

    // The drawing, moved and scaled like the digits of the study, averaged over the area of each pixel.
    function pixelsOfDrawing() {
      const fine = 8, width = data.columns * fine, height = data.rows * fine;
      const points = strokes.flat();
      const xs = points.map(function (p) { return p[0]; }), ys = points.map(function (p) { return p[1]; });
      const left = Math.min.apply(null, xs), right = Math.max.apply(null, xs);
      const top = Math.min.apply(null, ys), bottom = Math.max.apply(null, ys);
      const tall = data.height * height, pen = data.pen * tall;
      const scale = Math.min((tall - pen) / Math.max(bottom - top, 1), (width - pen) / Math.max(right - left, 1));
      const sheet = document.createElement("canvas");
      sheet.width = width; sheet.height = height;
      const draw = sheet.getContext("2d", { willReadFrequently: true });
      draw.fillStyle = "#000"; draw.fillRect(0, 0, width, height);
      draw.translate(width / 2, height / 2); draw.scale(scale, scale);
      draw.translate(-(left + right) / 2, -(top + bottom) / 2);
      trace(draw, pen / scale);
      const values = draw.getImageData(0, 0, width, height).data;
      const pixels = new Float32Array(data.rows * data.columns);
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
        pixels[Math.floor(y / fine) * data.columns + Math.floor(x / fine)] += values[4 * (y * width + x)] / 255 / fine / fine;
      }
      return pixels;
    }

    function trace(context, pen) {
      context.strokeStyle = "#fff"; context.lineWidth = pen; context.lineCap = "round"; context.lineJoin = "round";
      strokes.forEach(function (stroke) {
        context.beginPath();
        stroke.forEach(function (point, number) { context[number ? "lineTo" : "moveTo"](point[0], point[1]); });
        if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);
        context.stroke();
      });
    }

    function say(pixels) {
      const each = networks.map(function (layers) { return probabilities(layers, pixels, data); });
      const mean = data.classes.map(function (_, k) {
        return each.reduce(function (sum, p) { return sum + p[k]; }, 0) / each.length;
      });
      const context = small.getContext("2d"), picture = context.createImageData(data.columns, data.rows);
      pixels.forEach(function (value, number) {
        picture.data.fill(Math.round(255 * value), 4 * number, 4 * number + 3);
        picture.data[4 * number + 3] = 255;
      });
      context.putImageData(picture, 0, 0);
      root.querySelectorAll(".pad-bar").forEach(function (bar, k) {
        bar.style.setProperty("--share", 100 * mean[k] + "%");
        bar.replaceChildren();
        if (each.length > 1) each.forEach(function (p) {
          const tick = document.createElement("i");
          tick.style.left = 100 * p[k] + "%";
          bar.append(tick);
        });
      });
      root.querySelectorAll(".pad-number").forEach(function (cell, k) { cell.textContent = (100 * mean[k]).toFixed(0) + " %"; });
      const best = mean.indexOf(Math.max.apply(null, mean)), doubt = entropy(mean);
      let words = "The network says " + data.classes[best] + " with " + (100 * mean[best]).toFixed(0) + " % confidence; its entropy is "
        + doubt.toFixed(2) + " of at most " + Math.log(mean.length).toFixed(2) + " nats.";
      if (each.length > 1) {
        const shared = each.reduce(function (sum, p) { return sum + entropy(p); }, 0) / each.length;
        words = words.replace("The network says", "The " + each.length + " networks together say").replace("its entropy", "the entropy");
        words += " Of it, " + Math.max(0, doubt - shared).toFixed(2) + " is disagreement between the networks.";
      }
      find(".pad-sentence").textContent = words;
      root.probabilities = each; // for those who look under the hood
    }

    function wipe() { ink.fillStyle = "#000"; ink.fillRect(0, 0, pad.width, pad.height); }

    function redraw() { wipe(); trace(ink, 22); if (strokes.length) say(pixelsOfDrawing()); }

    function showExample() {
      strokes = []; wipe();
      const pixels = Float32Array.from(bytes(data.examples[Number(chooser.value)]), function (value) { return value / 255; });
      const step = [pad.width / data.columns, pad.height / data.rows];
      pixels.forEach(function (value, number) {
        const grey = Math.round(255 * value);
        ink.fillStyle = "rgb(" + grey + "," + grey + "," + grey + ")";
        ink.fillRect((number % data.columns) * step[0], Math.floor(number / data.columns) * step[1], step[0], step[1]);
      });
      say(pixels);
    }

    function place(event) {
      const box = pad.getBoundingClientRect();
      return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
    }

    pad.addEventListener("pointerdown", function (event) {
      drawing = true; strokes.push([place(event)]);
      try { pad.setPointerCapture(event.pointerId); } catch (error) { /* the pointer is gone already */ }
      redraw(); event.preventDefault();
    });
    pad.addEventListener("pointermove", function (event) {
      if (drawing) { strokes[strokes.length - 1].push(place(event)); redraw(); }
    });
    ["pointerup", "pointercancel"].forEach(function (name) { pad.addEventListener(name, function () { drawing = false; }); });
    find(".pad-clear").addEventListener("click", function () {
      strokes = []; wipe(); find(".pad-sentence").textContent = "Draw a digit on the black square.";
    });
    chooser.addEventListener("change", showExample);
    find(".pad-fallback").hidden = true;
    find(".pad-live").hidden = false;
    showExample();
  }
  start();
}
