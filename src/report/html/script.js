// The page is complete without this script. It adds: values under the pointer and by arrow keys, models
// one at a time, larger charts, and buttons that copy. It creates its own controls.
(() => {
  'use strict';
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  // The names of models by letter, from the lists above the charts.
  const names = {};
  all('[data-key]').forEach(item => {
    names[item.dataset.key] ??= item.querySelector('span').firstChild.textContent.trim();
  });

  // The box with values. It is announced, because it appears on a key press too.
  const tip = make('div', { id: 'tip', hidden: true });
  tip.setAttribute('role', 'status');
  document.body.append(tip);
  const showTip = (x, y, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(innerWidth - box.width - 4, x + 14)) + 'px';
    tip.style.top = Math.max(4, y - box.height - 12) + 'px';
  };

  // One model at a time.
  let only = null;
  const isolate = letter => {
    only = only === letter ? null : letter;
    document.body.classList.toggle('iso', only !== null);
    all('[data-m]').forEach(element => element.classList.toggle('on', element.dataset.m === only));
    all('.keys button').forEach(button =>
      button.setAttribute('aria-pressed', button.parentNode.dataset.key === only));
  };
  all('.keys li').forEach(item => {
    const button = make('button', { type: 'button', title: 'Show only this model' }, ...item.childNodes);
    button.setAttribute('aria-pressed', 'false');
    button.onclick = () => isolate(item.dataset.key);
    item.append(button);
  });
  all('svg .bd[data-m]').forEach(badge => badge.addEventListener('click', () => isolate(badge.dataset.m)));
  addEventListener('keydown', event => {
    if (event.key !== 'Escape') return;
    if (only !== null) isolate(only);
    tip.hidden = true;
  });

  // Larger charts.
  all('.grid3 > figure:not(.two)').forEach(figure => {
    if (!figure.querySelector('svg.plot')) return;
    const button = make('button', { type: 'button', className: 'zoom', textContent: 'Enlarge' });
    const title = figure.querySelector('h3')?.textContent ?? 'chart';
    button.setAttribute('aria-label', 'Enlarge: ' + title);
    button.setAttribute('aria-pressed', 'false');
    button.onclick = () => {
      const isLarge = figure.classList.toggle('large');
      button.textContent = isLarge ? 'Reduce' : 'Enlarge';
      button.setAttribute('aria-pressed', isLarge);
    };
    figure.querySelector('.art').append(button);
  });

  // Copying.
  all('.copy').forEach(box => {
    const button = make('button', { type: 'button', textContent: 'Copy' });
    button.setAttribute('aria-label', 'Copy: ' + box.dataset.what);
    button.onclick = async () => {
      const text = box.querySelector('pre').textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        // Without permission, as on pages from disk.
        const area = make('textarea', { value: text });
        document.body.append(area);
        area.select();
        document.execCommand('copy');
        area.remove();
      }
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    };
    box.append(button);
  });

  // Values. A chart states its axes: positions of the ends, their values, and whether x is logarithmic.
  const format = value => {
    const size = Math.abs(value);
    return size >= 1000 ? value.toFixed(0) : size >= 1 ? String(+value.toPrecision(3)) : value.toFixed(2);
  };
  const pointsOf = path => {
    const points = [];
    let x = 0, y = 0;
    for (const [, command, a, b] of path.getAttribute('d').matchAll(/([MLHV])(-?[\d.]+)(?:[ ,](-?[\d.]+))?/g)) {
      if (command === 'H') x = +a; else if (command === 'V') y = +a; else { x = +a; y = +b; }
      points.push([x, y]);
    }
    return points;
  };
  // The normal distribution function, by which the vertical axis of distributions is spaced.
  const normal = z => {
    const t = 1 / (1 + .2316419 * Math.abs(z));
    const tail = .3989423 * Math.exp(-z * z / 2) *
      t * (.3193815 + t * (-.3565638 + t * (1.781478 + t * (-1.821256 + t * 1.330274))));
    return z > 0 ? 1 - tail : tail;
  };
  const share = (y, axis) => {
    if (y < axis.y[0] + .3) return '> 99.5 %';
    if (y > axis.y[1] - .3) return '< 0.5 %';
    const part = normal(axis.valueAt(y));
    return (part * 100).toFixed(part > .98 ? 1 : 0) + ' %';
  };
  const axisOf = svg => {
    const numbers = text => (text ?? '').split(',').map(Number);
    const [left, right, from, to, isLog] = numbers(svg.dataset.x);
    const y = svg.dataset.y ? numbers(svg.dataset.y) : null;
    return {
      left, right, y,
      xAt: x => {
        const value = from + (x - left) / (right - left) * (to - from);
        return isLog ? 10 ** value : value;
      },
      valueAt: at => y[2] + (y[1] - at) / (y[1] - y[0]) * (y[3] - y[2]),
    };
  };
  // The height of a curve at a position; null before its begin.
  const heightAt = (points, x, kind, axis) => {
    const next = points.findIndex(point => point[0] >= x);
    if (next === 0) return points[0][0] > x + 1 ? null : points[0][1];
    if (next < 0) return kind === 'q' ? axis.y[0] : null;
    const [a, b] = [points[next - 1], points[next]];
    return a[1] + (b[1] - a[1]) * ((x - a[0]) / ((b[0] - a[0]) || 1));
  };

  const addValues = svg => {
    const kind = svg.dataset.hov;
    const axis = axisOf(svg);
    const marks = all('[data-tip]', svg);
    const dots = kind === 'd' ? all('path.ds', svg).flatMap(pointsOf) : [];
    const curves = kind === 'q' || kind === 'y'
      ? all('path.ln:not(.nohov):not(.old-band)', svg).filter(path => path.dataset.m !== undefined)
        .map(path => ({ letter: path.dataset.m, label: path.dataset.n, points: pointsOf(path) }))
      : [];
    if (!marks.length && !dots.length && !curves.length) return;
    let cross = null, at = null, index = -1;
    const scale = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const clear = () => { tip.hidden = true; cross?.remove(); cross = null; };

    const showCurves = (x, pageX, pageY) => {
      at = Math.max(axis.left, Math.min(axis.right, x));
      cross ??= svg.appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'path'));
      cross.setAttribute('class', 'cross');
      cross.setAttribute('d', `M${at} 12V${svg.viewBox.baseVal.height - 36}`);
      const lines = [];
      for (const { letter, label, points } of curves) {
        if (only && letter && letter !== only) continue;
        const y = heightAt(points, at, kind, axis);
        if (y === null) continue;
        const value = kind === 'q' ? share(y, axis) : format(axis.valueAt(y));
        const name = [names[letter], label].filter(Boolean).join(', ');
        lines.push(name ? `${name}: ${value}` : value);
      }
      showTip(pageX, pageY, `${kind === 'q' ? '≤ ' : ''}${format(axis.xAt(at))} ${svg.dataset.u}\n${lines.join('\n')}`);
    };
    const showDot = (number, pageX, pageY) => {
      index = (number + dots.length) % dots.length;
      const [x, y] = dots[index], [unit, valueUnit] = svg.dataset.u.split('|');
      const value = `${format(axis.valueAt(y))} ${valueUnit}`;
      const place = unit === 'request' || unit === 'event' ? `${unit} ${Math.round(axis.xAt(x))}` : `${format(axis.xAt(x))} ${unit}`;
      showTip(pageX, pageY, `${place}: ${value}`);
    };
    const distance = (mark, x, y) => {
      const box = mark.getBoundingClientRect();
      return Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
    };

    svg.addEventListener('pointermove', event => {
      const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / scale();
      if (curves.length) return showCurves(x, event.clientX, event.clientY);
      if (dots.length) {
        const nearest = dots.reduce((best, dot, i) => Math.abs(dot[0] - x) < Math.abs(dots[best][0] - x) ? i : best, 0);
        return showDot(nearest, event.clientX, event.clientY);
      }
      const near = marks.map(mark => [distance(mark, event.clientX, event.clientY), mark]).sort((a, b) => a[0] - b[0])[0];
      if (near[0] < 24) showTip(event.clientX, event.clientY, near[1].dataset.tip); else tip.hidden = true;
    });
    svg.addEventListener('pointerleave', clear);
    svg.addEventListener('blur', clear);
    svg.tabIndex = 0;
    svg.addEventListener('keydown', event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      if (curves.length) {
        const x = (at ?? (axis.left + axis.right) / 2) + 4 * step;
        return showCurves(x, box.left + x * scale(), box.top + 60);
      }
      if (dots.length) {
        index += step;
        const [x, y] = dots[(index + dots.length) % dots.length];
        return showDot(index, box.left + x * scale(), box.top + y * scale());
      }
      index = (index + step + marks.length) % marks.length;
      const mark = marks[index].getBoundingClientRect();
      showTip(mark.left, mark.top, marks[index].dataset.tip);
    });
  };
  all('svg.plot').forEach(addValues);
})();
