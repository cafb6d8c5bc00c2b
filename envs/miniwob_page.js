// What is put into a MiniWoB page before its own scripts run: a clock that only the environment moves, and
// `agentkit`, through which the environment sees and acts. See miniwob.py.
(() => {
  'use strict';
  const real = {frame: window.requestAnimationFrame.bind(window), timeout: window.setTimeout.bind(window), Date};

  // -- time: it stands still until `advance`, so that an episode does not depend on the speed of the machine
  let now = Date.UTC(2020, 0, 15, 12), number = 0;
  const timers = new Map();
  const start = (what, delay, every, args) => {
    timers.set(++number, {what, due: now + Math.max(1, Number(delay) || 0), every, args, number});
    return number;
  };
  const advance = milliseconds => {
    const end = now + milliseconds;
    for (;;) {
      let next = null;
      for (const t of timers.values()) {
        if (t.due <= end && (next === null || t.due < next.due || (t.due === next.due && t.number < next.number))) next = t;
      }
      if (next === null) break;
      now = next.due;
      if (next.every === null) timers.delete(next.number);
      else next.due = now + next.every;
      if (typeof next.what === 'function') next.what(...next.args);
    }
    now = end;
  };
  window.Date = new Proxy(real.Date, {
    construct: (target, args, made) => Reflect.construct(target, args.length ? args : [now], made),
    apply: () => new real.Date(now).toString(),
    get: (target, name) => name === 'now' ? () => now : Reflect.get(target, name),
  });
  performance.now = () => now;
  window.setTimeout = (what, delay, ...args) => start(what, delay, null, args);
  window.setInterval = (what, delay, ...args) => start(what, delay, Math.max(1, Number(delay) || 0), args);
  window.requestAnimationFrame = what => start(() => what(now), 16, null, []);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = id => { timers.delete(id); };

  // -- chance: what a page draws before the episode is seeded is the same each time, too
  let state = 1;
  Math.random = () => { state = (state * 48271) % 2147483647; return state / 2147483647; };

  // -- nothing blocks the page or leads away from it
  window.alert = window.print = window.open = () => null;
  window.confirm = () => true;
  window.prompt = () => null;
  document.addEventListener('submit', event => event.preventDefault(), true);
  document.addEventListener('click', event => {
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null;
    if (link && !(link.getAttribute('href') || '').startsWith('#')) event.preventDefault();
  }, true);

  // -- what is seen
  const refs = new WeakMap();
  let elements = [null];
  const HIDDEN = new Set(['reward-display', 'sync-task-cover', 'click-canvas', 'query']);
  const LOOKS = /^ui-(corner|helper|widget|front|state-default|icon$)/;  // how it looks, not what it is
  const SKIPPED = new Set(['SCRIPT', 'STYLE', 'OPTION', 'OPTGROUP', 'BR', 'DEFS', 'TITLE']);
  const ref = element => {
    if (!refs.has(element)) refs.set(element, elements.push(element) - 1);
    return refs.get(element);
  };
  const words = text => text.replace(/\s+/g, ' ').trim();
  const editable = e => e.isContentEditable || e instanceof HTMLTextAreaElement
    || (e instanceof HTMLInputElement && !['button', 'checkbox', 'color', 'file', 'image', 'radio', 'range', 'reset', 'submit'].includes(e.type));
  const scrolls = e => e.scrollHeight > e.clientHeight + 1 && e.clientHeight > 0
    && (e instanceof HTMLTextAreaElement || ['auto', 'scroll'].includes(getComputedStyle(e).overflowY));

  // The visible elements in the order of the page, as {ref, depth, tag, text, ...}; texts beside elements have no ref.
  const look = () => {
    const lines = [];
    const visit = (element, depth) => {
      if (HIDDEN.has(element.id) || SKIPPED.has(element.tagName.toUpperCase()) || element.classList.contains('ui-resizable-handle')) return;
      const style = getComputedStyle(element);
      if (style.display === 'none') return;
      const box = element.getBoundingClientRect();
      const shown = style.visibility !== 'hidden' && box.width > 0 && box.height > 0;
      const children = [...element.childNodes].filter(child => child instanceof Element ? !(child instanceof HTMLBRElement) : child instanceof Text && words(child.data));
      const whole = children.every(child => child instanceof Text);
      const own = whole ? words(children.map(child => child.data).join(' ')) : '';
      const input = element instanceof HTMLInputElement;
      const acts = input || editable(element) || element instanceof HTMLSelectElement || ['A', 'BUTTON', 'LABEL', 'LI', 'TR'].includes(element.tagName);
      const named = (element.id || element.classList.length) && !['wrap', 'area', 'content'].includes(element.id);
      let below = depth;
      if (shown && element !== document.body && (acts || own || named || (children.length === 0 && element.tagName !== 'DIV') || scrolls(element))) {
        const line = {ref: ref(element), depth, tag: element.tagName.toLowerCase(), text: own};
        if (element.id) line.id = element.id;
        line.classes = [...element.classList].filter(name => !LOOKS.test(name)).join(' ');
        if (input) {
          line.type = element.type;
          if (['checkbox', 'radio'].includes(element.type)) line.checked = element.checked;
          else line.value = element.value;
          if (element.placeholder) line.placeholder = element.placeholder;
        } else if (element instanceof HTMLTextAreaElement) {
          line.value = element.value; line.text = '';
        } else if (element instanceof HTMLSelectElement) {
          line.options = [...element.options].map(option => words(option.text));
          line.chosen = [...element.selectedOptions].map(option => words(option.text));
        } else if (element instanceof SVGElement) {
          line.fill = element.getAttribute('fill') || element.style.fill;
        } else if (element.style.backgroundColor || (whole && !own && style.backgroundColor !== 'rgba(0, 0, 0, 0)')) {
          line.fill = element.style.backgroundColor || style.backgroundColor;
        }
        line.editable = editable(element); line.scrolls = scrolls(element);
        line.disabled = Boolean(element.disabled); line.focused = document.activeElement === element;
        lines.push(line);
        below += 1;
      }
      if (whole || element instanceof HTMLSelectElement) return;
      for (const child of children) {
        if (child instanceof Element) visit(child, below);
        else if (shown) lines.push({ref: 0, depth: below, tag: '', text: words(child.data)});
      }
    };
    visit(document.body, 0);
    return lines;
  };

  // Pictures take part in the layout only when they are loaded.
  const loaded = picture => picture.complete ? null : new Promise(done => {
    picture.addEventListener('load', done, {once: true}); picture.addEventListener('error', done, {once: true});
  });
  const kept = [];
  const loadPictures = () => {
    const rules = [...document.querySelectorAll('style')].map(style => style.textContent).join('\n');
    for (const [, url] of rules.matchAll(/url\(["']?([^"')]+)["']?\)/g)) {
      const picture = new Image();
      picture.src = url;
      kept.push(picture);
    }
    return Promise.all(kept.map(loaded));
  };
  const settled = async () => {
    await Promise.all([...document.images].map(loaded));
    await new Promise(done => real.frame(() => real.timeout(done, 0)));
  };

  window.agentkit = {
    // Start the episode that belongs to a seed.
    async begin(seed) {
      const still = document.createElement('style');
      still.textContent = '*, *::before, *::after { transition: none !important; animation: none !important; caret-color: transparent !important; }';
      document.head.append(still);
      await loadPictures();
      core.EPISODE_MAX_TIME = 1e12;  // a model thinks longer than a hand; the limit is one of steps
      Math.seedrandom(seed);
      core.startEpisodeReal();
      // From here on no text that is typed can become a script, whatever a page does with it.
      const policy = document.createElement('meta');
      policy.httpEquiv = 'Content-Security-Policy';
      policy.content = "script-src 'none'; connect-src 'none'; frame-src 'none'; object-src 'none'; form-action 'none'";
      document.head.append(policy);
      await settled();
      return this.state();
    },
    // Let the page's time go on, and what it caused happen.
    async go(milliseconds) {
      advance(milliseconds);
      await settled();
      return this.state();
    },
    state() {
      const asked = core.getUtterance(), both = typeof asked === 'object';  // some tasks name the fields themselves
      return {
        utterance: both ? asked.utterance : asked, fields: both ? Object.values(asked.fields).map(String) : [],
        done: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL,
        reason: WOB_REWARD_REASON === null || WOB_REWARD_REASON === undefined ? '' : String(WOB_REWARD_REASON),
        lines: WOB_DONE_GLOBAL ? [] : look(),
      };
    },
    // Where to point at an element: {x, y}, or {problem}.
    point(number) {
      const element = elements[number];
      if (!element.isConnected) return {problem: 'it is gone'};
      element.scrollIntoView({block: 'nearest', inline: 'nearest', behavior: 'instant'});
      const boxes = [...element.getClientRects()].filter(box => box.width > 0 && box.height > 0);
      if (!boxes.length) return {problem: 'it is not visible'};
      let above = null;
      for (const box of boxes) {
        for (const [across, down] of [[0.5, 0.5], [0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75], [0.1, 0.1], [0.9, 0.9]]) {
          const x = box.left + box.width * across, y = box.top + box.height * down;
          const hit = document.elementFromPoint(x, y);
          if (hit && (element.contains(hit) || (element instanceof HTMLLabelElement && element.control === hit))) return {x, y};
          above = above || hit;
        }
      }
      return {problem: above ? `<${above.tagName.toLowerCase()}${above.id ? ' id=' + above.id : ''}> covers it` : 'it is outside the page'};
    },
    // Put the cursor into a field, with all of its text selected.
    focus(number) {
      const element = elements[number];
      if (element.disabled || element.readOnly) return 'it takes no text now';
      element.focus();
      if (document.activeElement !== element) return 'it cannot be focused';
      if (element.select) element.select();
      else getSelection().selectAllChildren(element);
      return '';
    },
    choose(number, text) {
      const list = elements[number];
      const option = [...list.options].find(o => words(o.text) === text);
      if (!option) return false;
      list.focus();
      option.selected = list.multiple ? !option.selected : true;
      list.dispatchEvent(new Event('input', {bubbles: true}));
      list.dispatchEvent(new Event('change', {bubbles: true}));
      return true;
    },
    scroll(number, pages) {
      const element = elements[number], before = element.scrollTop;
      element.scrollBy({top: pages * element.clientHeight, behavior: 'instant'});
      return element.scrollTop !== before;
    },
  };
})();
