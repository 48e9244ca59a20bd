/** LaTeX as MathML, which browsers draw with fonts they have. Its styles are set by script, for the page's policy. */
import temml from 'temml';
import DOMPurify from 'dompurify';

export function draw(element: HTMLElement): void {
  for (const place of element.querySelectorAll<HTMLElement>('[data-math]')) {
    const source = place.textContent ?? '';
    const block = place.dataset.math === 'block';
    delete place.dataset.math;
    place.classList.add(block ? 'math-block' : 'math');
    let text: string;
    try {
      text = temml.renderToString(source, { displayMode: block, throwOnError: true, maxExpand: 200, trust: false });
    } catch {
      place.classList.add('math-wrong'); // shown as it was written
      continue;
    }
    const inert = text.replaceAll(' style="', ' data-style="');
    const clean = DOMPurify.sanitize(inert, { USE_PROFILES: { mathMl: true }, ADD_ATTR: ['data-style'], RETURN_DOM_FRAGMENT: true });
    for (const styled of clean.querySelectorAll<HTMLElement>('[data-style]')) {
      styled.style.cssText = styled.dataset.style ?? '';
      styled.removeAttribute('data-style');
    }
    place.replaceChildren(clean);
    place.tabIndex = block ? 0 : -1;
  }
}
